"""A page whose tables are written anew from figures, and its text left alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

#: What is between these is ours: ``<!-- benchmarks: NAME -->``, ``<!-- end -->``.
_PART = re.compile(r"(<!-- benchmarks: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(page: Path, parts: Mapping[str, str]) -> None:
    """Write the parts of a page that there are; the others stay as they are."""

    def part(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in parts:
            return found[0]
        return f"{begin}\n{parts[name]}\n\n{end}"

    text = page.read_text(encoding="utf-8")
    page.write_text(_PART.sub(part, text), encoding="utf-8")
