"""How Sphinx builds the documentation. It needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cnm
import cnm.driver
import cnm.firewall
import cnm.linux

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "cnm"
author = "The cnm developers"
version = release = cnm.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cnm {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # CHANGELOG.md begins where its page has begun

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 72

# Everything that is documented, by name; the first module of these is its home.
_PUBLIC = (cnm, cnm.driver, cnm.linux, cnm.firewall)
# Annotations name these by where they are defined.
_ALIASES = {"JSON", "IPAddress", "IPNetwork", "IPInterface", "Mode"}
# Parts of signatures that have no documentation of their own.
_UNDOCUMENTED = {"Command", "E", "E_co", "Hook", "R_co", "Set", "T", "Verdict", "_Kept"}
# The module cnm.driver has these, too.
_OPTIONS = {"Option", "parse_options"}


def _home(name: str) -> str:
    if name in _OPTIONS:
        return "cnm.options"
    for module in _PUBLIC:
        if name in module.__all__:
            return module.__name__
    return ""


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Resolve a name to where the public API has it.

    What belongs to other packages stays without a link; a name of cnm that is not
    documented is an error.
    """
    target = str(node.get("reftarget", ""))
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py":
        return None
    if _home(name):
        documents = env.domains.python_domain
        return documents.resolve_xref(
            env,
            str(node["refdoc"]),
            app.builder,
            "data" if name in _ALIASES else "obj",
            f"{_home(name)}.{name}",
            node,
            content,
        )
    ours = target.startswith("cnm") and name not in _UNDOCUMENTED
    return None if ours else content


def setup(app: Sphinx) -> None:
    """Connect the resolver."""
    app.connect("missing-reference", _resolve)


# type variables are no objects that have a description
nitpick_ignore_regex = [
    ("py:.*", r"cnm\..*\.[A-Z]"),
    # what the kernel's threads share is nobody else's business
    ("py:class", r"cnm\.linux\.(ready\.Ready|sandboxes\.Kept)"),
]
