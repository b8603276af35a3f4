"""Other name servers, in place of real ones."""

from __future__ import annotations

import pytest

from cnm.dns import forwarder as forwarder_module

from .world import Elsewhere


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    made = Elsewhere()
    monkeypatch.setattr(forwarder_module, "ask", made.ask)
    return made
