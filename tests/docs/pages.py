"""The pages of the documentation, and the programs on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts),
)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (cnm[\w.]*?)(\(\))?$", re.MULTILINE)


def programs() -> Iterator[tuple[str, str]]:
    """Yield every Python program of the pages, with the place where it begins."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", block[1]


def directives() -> dict[str, str]:
    """Return what the reference documents, and by which kind of directive."""
    found: dict[str, str] = {}
    for page in (DOCS / "reference").glob("*.md"):
        for kind, name, _ in _DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            assert name not in found, f"{name} is documented twice"
            found[name] = kind
    return found
