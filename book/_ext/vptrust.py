"""What pages say of where they come from: the notebooks of the book, how they ran, and what each page is made of.

```{notebooks}            every notebook: its question, its study, and where to open it
```{runs}                 when each of them ran for this book, how long, and on what
```{sources}              each page with its notebooks, their records, and the commits that computed these
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from vpbook import GENERATED, chapters, content, notebook_link, title

from vpcore.report import batch, lineage, prose


def executed() -> dict[str, Path]:
    """The notebooks that were run for the book, by the folders of their output."""
    found = sorted(path for path in GENERATED.rglob("*.ipynb") if path.stem == path.parent.name)
    return {path.parent.relative_to(GENERATED).as_posix(): path for path in found}


def table(heads: Sequence[str], rows: Sequence[Sequence[str | list[nodes.Node]]]) -> nodes.table:
    """A table whose cells are text or inline nodes."""
    made = nodes.table("", group := nodes.tgroup("", cols=len(heads)))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    for part, lines in ((nodes.thead(), [heads]), (nodes.tbody(), rows)):
        group += part
        for line in lines:
            cells = [[nodes.Text(cell)] if isinstance(cell, str) else cell for cell in line]
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))
    return made


class Notebooks(SphinxDirective):
    """```{notebooks}"""

    def run(self) -> list[nodes.Node]:
        rows: list[list[str | list[nodes.Node]]] = []
        for place, path in executed().items():
            question = "".join(json.loads(path.read_text())["cells"][0]["source"]).partition("\n\n")[2]
            origin = content(place, self.env)["provenance"]
            study = "" if origin["profile"] == "none" else prose.study_of(origin["profile"])
            rows.append([[notebook_link(Path(place), place, self.env)], " ".join(question.split()), study])
        return [table(["notebook", "what it asks", "study"], rows)]


class Runs(SphinxDirective):
    """```{runs}"""

    def run(self) -> list[nodes.Node]:
        stamps = {place: json.loads((path.parent / batch.STAMP).read_text()) for place, path in executed().items()}
        rows: list[list[str | list[nodes.Node]]] = []
        for place, stamp in stamps.items():
            self.env.note_dependency(str(GENERATED / place / batch.STAMP))
            origin = content(place, self.env)["provenance"]
            records = [str(origin["runs"]), origin["computing"], origin["finished"][:10]]
            cells = records if origin["profile"] != "none" else ["none", "", ""]
            ran = stamp["ran"][:16].replace("T", " ")
            rows.append([[notebook_link(Path(place), place, self.env)], ran, f"{stamp['seconds']:.0f} s", *cells])
        processors = prose.listed(sorted({stamp["processor"] for stamp in stamps.values()}))
        minutes = sum(stamp["seconds"] for stamp in stamps.values()) / 60
        told = f"{len(rows)} notebooks ran on {processors}, in {minutes:.1f} minutes if they had run one after the other."
        heads = ["notebook", "ran (UTC)", "took", "records it read", "their computing", "the last of them"]
        return [nodes.paragraph(text=told), table(heads, rows)]


class Sources(SphinxDirective):
    """```{sources}"""

    def run(self) -> list[nodes.Node]:
        rows: list[list[str | list[nodes.Node]]] = []
        for page in chapters():
            self.env.note_dependency(str(page))
            places = sorted(lineage.notebooks_of(page.read_text()) & executed().keys())
            origins = [content(place, self.env)["provenance"] for place in places]
            links: list[nodes.Node] = []
            for place in places:
                links += [nodes.Text(", ")] * bool(links) + [notebook_link(Path(place), place, self.env)]
            studies = sorted({origin["profile"] for origin in origins} - {"none"})
            if places:
                link = nodes.reference("", title(page), refuri=f"{page.stem}.html", internal=True)
                rows.append([[link], links, ", ".join(studies) or lineage.HERE])
        by = [f"{study} at {', '.join(commits)}" for study, commits in sorted(lineage.commits(GENERATED).items())]
        told = nodes.paragraph(text=f"The commits that computed the records: {'; '.join(by)}.")
        return [table(["page", "notebooks", "records of"], rows), told]


def setup(app: Sphinx) -> dict[str, object]:
    for name, directive in {"notebooks": Notebooks, "runs": Runs, "sources": Sources}.items():
        app.add_directive(name, directive)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
