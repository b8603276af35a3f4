"""Files of earlier versions; tests/data has one of each layout, written by cnm."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

import cnm
from cnm import SQLiteStore, StoreError
from cnm.records import (
    attachment_of,
    endpoint_info,
    endpoint_record,
    network_info,
    network_record,
    network_state,
    sandbox_info,
    sandbox_record,
)
from cnm.store import layouts
from cnm.store.layouts import APPLICATION, LAYOUT

from .conftest import forget_table

DATA = Path(__file__).parents[2] / "data"
FIXTURES = sorted(DATA.glob("store-*.sql"))
OLD = FIXTURES[:-1]
#: What records have got since the first layout.
ADDED: dict[str, dict[str, object]] = {
    "network": {"services": []},
    "endpoint": {"links": {}},
    "sandbox": {"bound_to": 0, "bound_since": 0},
}


def load(fixture: Path, path: Path) -> dict[str, dict[str, object]]:
    """Make a file of a fixture; return its records."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
        return records(connection)


def records(connection: sqlite3.Connection) -> dict[str, dict[str, object]]:
    """Return what is in a file."""
    rows = connection.execute("SELECT key, value FROM record")
    return {key: json.loads(value) for key, value in rows}


def written(value: Mapping[str, cnm.JSON]) -> object:
    """Return what is read of a record when it has been written."""
    return json.loads(layouts.encode(value))


def pragma(path: Path, name: str) -> int:
    """Return a number of a file's header."""
    with closing(sqlite3.connect(path)) as connection:
        (value,) = connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)


def test_there_is_a_file_of_every_layout() -> None:
    assert [path.name for path in FIXTURES] == [
        f"store-{layout}.sql" for layout in range(1, LAYOUT + 1)
    ]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
async def test_every_layout_becomes_the_newest(fixture: Path, path: Path) -> None:
    before = load(fixture, path)
    store = SQLiteStore(path)
    for _ in range(2):
        await store.open()
        after = {record.key: dict(record.value) for record in await store.scan("")}
        await store.close()
        assert after.keys() == before.keys()
        for key, value in before.items():
            assert after[key] == {**ADDED[key.split("/")[0]], **value}
    assert pragma(path, "user_version") == LAYOUT
    assert pragma(path, "application_id") == APPLICATION


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
async def test_a_controller_takes_up_every_layout(fixture: Path, path: Path) -> None:
    load(fixture, path)
    async with cnm.Controller(store=SQLiteStore(path)) as controller:
        assert {each.name for each in controller.networks} == {"conf", "front", "other"}
        network = controller.network("front")
        # the sandbox is gone with the machine
        assert controller.sandboxes == ()
        assert not network.endpoint("box").joined
        assert str(network.endpoint("box").address) == "10.9.0.2/24"
        assert str(network.endpoint("spare").address) == "10.9.0.50/24"
        fresh = await controller.create_sandbox("fresh")
        await network.endpoint("box").join(fresh)
        await fresh.delete()
        for each in sorted(controller.networks, key=lambda n: n.info.config_only):
            await each.delete(force=True)
        await forget_table(controller)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
async def test_records_are_those_of_today(fixture: Path, path: Path) -> None:
    """Whoever changes what is in a record makes a new layout, and a step to it."""
    load(fixture, path)
    store = SQLiteStore(path)
    await store.open()
    networks: dict[object, cnm.NetworkInfo] = {}
    for record in await store.scan("network/"):
        info, state = network_info(record.value), network_state(record.value)
        assert written(network_record(info, state)) == record.value
        networks[info.id] = info
    for record in await store.scan("endpoint/"):
        endpoint = endpoint_info(record.value, networks[record.value["network"]])
        attachment = attachment_of(record.value)
        assert written(endpoint_record(endpoint, attachment)) == record.value
    for record in await store.scan("sandbox/"):
        since = record.value["bound_since"]
        assert isinstance(since, int)
        sandbox = sandbox_info(record.value)
        assert written(sandbox_record(*sandbox, since)) == record.value
    await store.close()


@pytest.mark.parametrize("fixture", OLD, ids=lambda path: path.stem)
async def test_a_step_that_fails_changes_nothing(
    fixture: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(fixture, path)
    layout = pragma(path, "user_version")
    add, left = layouts._add, 1

    def fail(connection: sqlite3.Connection, prefix: str, **fields: cnm.JSON) -> None:
        nonlocal left
        if not left:
            raise sqlite3.OperationalError("no")
        left -= 1
        add(connection, prefix, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "_add", fail)
        with pytest.raises(StoreError, match=f"store {path}: no"):
            await SQLiteStore(path).open()
    assert not left
    assert pragma(path, "user_version") == layout
    with closing(sqlite3.connect(path)) as connection:
        assert records(connection) == before
    store = SQLiteStore(path)
    await store.open()
    assert len(await store.scan("")) == len(before)
    await store.close()


async def test_a_newer_layout_is_refused(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    text = (
        f"store {path} has layout 99; this version of cnm knows layouts up to {LAYOUT}"
    )
    for _ in range(2):
        with pytest.raises(StoreError, match=text):
            await store.open()
    assert path.read_bytes() == before
