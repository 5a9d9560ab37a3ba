"""The reference of the public names, made from their docstrings.

Docstrings of vpcore are plain text with the sections of Google's style, and names in backticks. Before `sphinx.ext.napoleon`
reads the sections, names become code, those that `vpcore` hands on become links, and what reStructuredText would take for
markup is escaped; examples stay as they are. A type in a signature is a link where it is documented here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import vpcore


def as_rst(lines: list[str]) -> Iterator[str]:
    """A docstring in reStructuredText, line by line.

    >>> list(as_rst(["Masks of `prune`, as `masks` has them; a * b.", ">>> 2 * 3", "6"]))
    ['Masks of :py:obj:`~vpcore.prune`, as ``masks`` has them; a \\\\* b.', '>>> 2 * 3', '6']
    """
    example = False
    for line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        parts = [line] if example else line.split("`")
        for place in range(0, len(parts) if not example else 0, 2):
            parts[place] = re.sub(r"([*|\\]|_(?!\w))", r"\\\1", parts[place])
        for place in range(1, len(parts), 2):
            parts[place] = f":py:obj:`~vpcore.{parts[place]}`" if parts[place] in vpcore.__all__ else f"``{parts[place]}``"
        yield "".join(parts)


def rewrite(app: Sphinx, what: str, name: str, thing: object, options: dict[str, Any], lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Types in signatures: a public name wherever it is defined, and anything else without a link."""
    if node.get("refdomain") != "py" or node["reftype"] not in ("class", "exc"):
        return None
    name = f"vpcore.{node['reftarget'].rpartition('.')[2]}"
    found = env.get_domain("py").resolve_any_xref(env, node["refdoc"], app.builder, name, node, content)
    return found[0][1] if found else content


def setup(app: Sphinx) -> dict[str, object]:
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.napoleon"):
        app.setup_extension(extension)
    app.connect("autodoc-process-docstring", rewrite, priority=100)  # before napoleon
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
