"""Rules of the house that no type checker and no linter knows."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnm

ROOT = Path(__file__).parents[2]
DRIVERS = sorted(ROOT.glob("cnm_drivers_*"))
CORE = sorted((ROOT / "cnm").rglob("*.py"))
ALL = [*CORE, *(path for driver in DRIVERS for path in sorted(driver.rglob("*.py")))]

#: The modules and packages of cnm, from the bottom; an import only goes down.
LEVELS = (
    ("types", "errors", "waiting", "workers"),
    ("validation", "reports", "rollback", "linux", "answers"),
    ("acceptance", "options", "firewall", "ports", "requests"),
    ("events", "hookspecs", "records", "gateways", "directory", "dns"),
    ("plans", "plugins", "bus", "store", "ipam", "parents"),
    ("absent", "findings"),
    ("allocation", "interfaces", "journal", "overtaking", "settings", "turns"),
    ("sandbox_plans",),
    ("networks", "tenants", "damage"),
    ("services", "service_records", "claim"),
    ("naming",),
    ("roles",),
    ("creation", "publishing", "republishing", "joining", "leaving", "attaching"),
    ("endpoint",),
    ("connecting",),
    ("network", "sandbox", "sandbox_io"),
    ("sweeping",),
    ("inspection",),
    ("repair",),
    ("interrupted", "garbage"),
    ("restore",),
    ("watching", "diagnosis"),
    ("running",),
    ("lifecycle", "upkeep"),
    ("controller",),
    ("driver", "testing"),
    ("__init__", "__main__", "scaffold"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
#: Who may import what is not ours.
FOREIGN = {
    "pluggy": {"hookspecs", "plugins"},
    "netaddr": {"ipam"},
    "pyroute2": {"linux"},
}
KITS = {
    *("cnm.driver", "cnm.options", "cnm.linux", "cnm.firewall", "cnm.ports"),
    "cnm.parents",
}


def part(path: Path) -> str:
    """Return the module or package of cnm that a file belongs to."""
    return path.relative_to(ROOT / "cnm").parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Return the absolute names of the modules that a file imports at run time."""
    package = list(path.relative_to(ROOT).parent.parts)
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "path", paths, ids=[str(path.relative_to(ROOT)) for path in paths]
    )


@named(CORE)
def test_imports_go_down(path: Path) -> None:
    own = part(path)
    for module in imports(path):
        words = module.split(".")
        if words[0] == "cnm" and len(words) > 1 and words[1] in LEVEL:
            other = words[1]
            assert other == own or LEVEL[other] <= LEVEL[own], module
        assert not words[0].startswith("cnm_drivers"), module
        assert own in FOREIGN.get(words[0], {own}), module


def test_no_circles_within_a_level() -> None:
    graph: dict[str, set[str]] = {name: set() for name in LEVEL}
    for path in CORE:
        used = {m.split(".")[1] for m in imports(path) if m.startswith("cnm.")}
        graph[part(path)] |= used & LEVEL.keys() - {part(path)}
    while free := [name for name, used in graph.items() if not used]:
        for name in free:
            del graph[name]
        for used in graph.values():
            used.difference_update(free)
    assert graph == {}


@named([path for path in ALL if path not in CORE])
def test_drivers_import_the_kits_only(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    for module in imports(path):
        words = module.split(".")
        assert not words[0].startswith("cnm_drivers") or words[0] == own, module
        assert words[0] not in FOREIGN, module
        if words[0] == "cnm" and len(words) > 1:
            assert ".".join(words[:2]) in KITS, module


@named(ALL)
def test_files(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count("\n") <= 400, "a file of its own for a part of it?"
    for word in ("/work/", "issue #", "prototype", "TODO", "FIXME"):
        assert word not in content


@named([path for path in ALL if "__all__" in path.read_text(encoding="utf-8")])
def test_what_is_exported(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name.removesuffix(".__init__"))
    exported = module.__all__
    assert exported == sorted(set(exported))
    assert [word for word in exported if not hasattr(module, word)] == []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = {
        (alias.asname or alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    }
    if path.name == "__init__.py" and path.parent.name in ("cnm", "linux"):
        assert public <= set(exported)


@pytest.mark.parametrize("package", ["cnm", *(path.name for path in DRIVERS)])
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


#: What comes with the first controller that starts, or later still.
LATER = {
    *("cnm.dns", "cnm.firewall", "cnm.ipam", "cnm.linux", "cnm.parents", "cnm.ports"),
    *("cnm.creation", "cnm.endpoint", "cnm.journal", "cnm.lifecycle", "cnm.network"),
    *("cnm.running", "cnm.sandbox", "cnm.services", "cnm.store.sqlite"),
    *("cnm.testing", *(path.name for path in DRIVERS)),
    *("asyncio", "ctypes", "hashlib", "json", "netaddr", "pyroute2", "sqlite3"),
    *("subprocess", "trio"),
}
#: What the command line needs, and ``import cnm`` does not.
COMMAND = {"importlib.metadata", "pathlib", "urllib"}
#: What importlib.metadata brings along.
BROUGHT = {"json"} if sys.version_info >= (3, 13) else set()


def in_new_process(program: str) -> object:
    """Return what a program prints, read as a literal."""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    return ast.literal_eval(result.stdout.decode())


@pytest.mark.parametrize(
    ("program", "later"),
    [
        ("import cnm; cnm.Controller()", LATER | COMMAND),
        ("import cnm.driver", LATER | COMMAND),
        ("import runpy; runpy.run_module('cnm')", LATER - BROUGHT),
    ],
)
def test_what_takes_long_to_import_comes_later(program: str, later: set[str]) -> None:
    # what others bring along is not ours to say
    program = (
        "import sys, anyio.streams.memory, anyio.to_thread, pluggy; "
        f"others = set(sys.modules); {program}; "
        "print(sorted(sys.modules.keys() - others))"
    )
    loaded = in_new_process(program)
    assert isinstance(loaded, list)
    assert "cnm.events" in loaded
    assert later & set(loaded) == set()


def test_every_name_is_there_however_it_is_asked_for() -> None:
    for program in (
        "from cnm import *; print(sorted(globals().keys() & set({names})))",
        "import cnm; print([it for it in {names} if getattr(cnm, it)])",
        "import cnm; print([it for it in dir(cnm) if it in {names}])",
    ):
        assert in_new_process(program.format(names=cnm.__all__)) == cnm.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Sandwich'"):
        getattr(cnm, "Sandwich")  # noqa: B009 - who checks types knows it, too
