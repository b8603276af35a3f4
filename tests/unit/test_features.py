"""Tests that need more than the kernel has are skipped, or fail, and say why."""

from __future__ import annotations

import pytest

from tests import features


class Item:
    """A test that needs two features."""

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [features.needs("dummy", "vlan").mark] if name == "needs" else []


def outcome(
    monkeypatch: pytest.MonkeyPatch, present: set[str], everything: str
) -> BaseException | None:
    monkeypatch.setattr(features, "has", present.__contains__)
    monkeypatch.setenv("CNM_TEST_ALL_FEATURES", everything)
    try:
        features.check(Item())  # type: ignore[arg-type]
    except BaseException as exc:
        return exc
    return None


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(monkeypatch, {"dummy", "vlan"}, "") is None
    skipped = outcome(monkeypatch, {"dummy"}, "")
    assert isinstance(skipped, pytest.skip.Exception)
    assert str(skipped) == "this kernel has no vlan"
    failed = outcome(monkeypatch, set(), "1")
    assert isinstance(failed, pytest.fail.Exception)
    assert str(failed) == "this kernel has no dummy, vlan"


def test_only_what_can_be_tried_may_be_needed() -> None:
    with pytest.raises(AssertionError):
        features.needs("ipvlam")
