"""What our pages need of Sphinx: notebooks that are up to date, and numbers that come from them.

On `config-inited`, before Sphinx looks for documents, the study is completed and the notebooks are run through papermill
(those that are missing or out of date), so that `jupyter-book build book/` is all there is to do. A notebook that fails
fails the build.

    {num}`accuracy:vp_dense|.1%`         the number vp_dense of generated/accuracy/numbers.json, formatted; unknown keys fail
    {num}`accuracy:vp_loss|points`       the same as percentage points: "4.2 points", or with |pt just "4.2"
    {said}`accuracy:vp_loss|fall`        which way a cost goes, by `vpcore.report.prose`: "falls by 4.2 points (2.0 to 6.4)"
    {verdict}`accuracy:vp_loss`          its verdict: **supported**
    {across}`C1`                         the verdicts of all studies on a claim: **supported** on letters
    ```{provenance} accuracy             what the results of a page come from
    ```

What a notebook says of another profile lies in a folder of that name: its numbers are {num}`PROFILE/accuracy:vp_dense|.1%`.

Figures of `generated` get what `vpcore.report.figure_files` left beside them: a picture for dark pages, words for those who
cannot see it, and links to the files and to the notebook. Tables of `generated` get a link to their file.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.patches import CSVTable, Figure
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from vpcore.errors import InputError
from vpcore.report import batch, editions, explorer, lineage, overview, prose
from vpcore.study.profile import load_profile

LOGGER = logging.getLogger(__name__)
SEPARATOR = " \N{MIDDLE DOT} "
PHONE = 500  # points: a wider picture scrolls on a phone, where its text would be too small
POINTS = {"points": " points", "pt": ""}  # 0.042 is 4.2 percentage points
GENERATED = Path(__file__).resolve().parent.parent / "generated"
RESULTS = GENERATED.parents[1] / "results"


def run_notebooks(app: Sphinx, config: Config) -> None:
    """Bring the folder `generated` up to date.

    Every notebook is run with the first of `vpcore_profiles` that has the grids it shows, into generated/NOTEBOOK; those
    that show no runs, with the first of all.
    VPCORE_PROFILE takes the place of the first profile, and VPCORE_TOY=1 makes a toy of it. Those that `vpcore_again` names
    for a profile are run with that profile, too, into generated/PROFILE/NOTEBOOK.
    """
    log = functools.partial(LOGGER.info, "notebook %s")
    profiles = [os.environ.get("VPCORE_PROFILE", config.vpcore_profiles[0]), *config.vpcore_profiles[1:]]
    taken: set[str] = set()
    ran: list[str] = []
    try:
        for number, profile in enumerate(dict.fromkeys(profiles)):
            toy = number == 0 and os.environ.get("VPCORE_TOY", "") == "1"
            shown = batch.fitting(load_profile(profile, toy=toy)) + (batch.of_no_profile() if number == 0 else ())
            mine = tuple(name for name in shown if name not in taken)
            taken |= set(mine)
            if mine:
                ran += batch.regenerate(GENERATED, profile=profile, toy=toy, only=mine, log=log)
        for profile, notebooks in config.vpcore_again.items():
            ran += batch.regenerate(GENERATED / profile, profile=profile, only=tuple(notebooks), log=log)
        if ran or not (GENERATED / "verdicts" / "claims.svg").exists():
            overview.write(GENERATED)
        if ran or not (GENERATED / "explorer" / "explorer.json").exists():
            explorer.write(RESULTS, GENERATED / "explorer" / "explorer.json", toy=os.environ.get("VPCORE_TOY", "") == "1")
        editions.write(overview.found(GENERATED), RESULTS / "editions", GENERATED / "verdicts")
        lineage.write({title(page): page.read_text() for page in chapters()}, GENERATED, anew=bool(ran))
    except InputError as error:
        raise ExtensionError(f"the notebooks of the book could not be brought up to date: {error}") from error


def chapters() -> list[Path]:
    """The pages that were written, in the order of the book."""
    listed = (GENERATED.parent / "_toc.yml").read_text()
    return [GENERATED.parent / f"{name}.md" for name in re.findall(r"(?:root|file): (\w+)$", listed, re.MULTILINE)]


def title(page: Path) -> str:
    """The first heading of a page."""
    return page.read_text().partition("# ")[2].partition("\n")[0]


def content(notebook: str, env) -> dict:  # noqa: ANN001 the environment of Sphinx
    path = GENERATED / notebook / "numbers.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text())


class FromResults(SphinxRole):
    """A role whose text is NOTEBOOK:KEY|HOW, and that fails the build where there is no such number."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        reference, _, how = self.text.partition("|")
        notebook, _, key = reference.partition(":")
        try:
            return self.told(notebook, key, how), []
        except (OSError, KeyError, ValueError, TypeError) as error:
            message = self.inliner.reporter.error(f"no number {self.text!r}: {error!r}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]

    def told(self, notebook: str, key: str, how: str) -> list[nodes.Node]:
        raise NotImplementedError


class Number(FromResults):
    """{num}`NOTEBOOK:KEY|FORMAT`"""

    def told(self, notebook: str, key: str, how: str) -> list[nodes.Node]:
        value = content(notebook, self.env)["numbers"][key]
        text = f"{100 * value:.1f}{POINTS[how]}" if how in POINTS else format(value, how)
        return [nodes.inline(text, prose.tidy(text) if how else text)]


class Said(FromResults):
    """{said}`NOTEBOOK:KEY|WORDS`"""

    def told(self, notebook: str, key: str, how: str) -> list[nodes.Node]:
        text = prose.said(content(notebook, self.env)["numbers"], key, how)
        return [nodes.inline(text, text)]


class Verdict(FromResults):
    """{verdict}`NOTEBOOK:KEY`"""

    def told(self, notebook: str, key: str, how: str) -> list[nodes.Node]:
        numbers = content(notebook, self.env)["numbers"]
        return [_verdict(numbers[f"{key}_verdict"])]


class Across(FromResults):
    """{across}`CLAIM`"""

    def told(self, notebook: str, key: str, how: str) -> list[nodes.Node]:
        self.env.note_dependency(str(GENERATED / "verdicts" / "claims.txt"))
        parts: list[nodes.Node] = []
        for verdict, studies in overview.answers(overview.found(GENERATED), notebook):
            parts += [nodes.Text(", " * bool(parts)), _verdict(verdict), nodes.Text(f" {studies}")]
        return parts or [_verdict("not tested here")]


def _verdict(word: str) -> nodes.Node:
    return nodes.strong(word, word, classes=["verdict", "verdict-" + word.partition(":")[0].replace(" ", "-")])


class GeneratedFigure(SphinxDirective, Figure):
    """The directive `figure`, with what lies beside a generated picture."""

    def run(self) -> list[nodes.Node]:
        picture = Path(self.arguments[0])
        if picture.parts[:1] != (GENERATED.name,):
            return super().run()
        beside = GENERATED.parent / picture.with_suffix(".txt")
        self.env.note_dependency(str(beside))
        self.options["alt"] = beside.read_text()
        (figure,) = super().run()
        (image,) = figure.findall(nodes.image)
        width = re.search(r'<svg [^>]*width="([\d.]+)pt"', (GENERATED.parent / picture).read_text())
        image["classes"] += ["only-light"] + ["wide"] * bool(width and float(width[1]) > PHONE)
        night = image.copy()
        night.attributes |= {"uri": f"{picture.with_suffix('')}-dark.svg", "ids": []}
        night["classes"] = ["only-dark" if name == "only-light" else name for name in image["classes"]]
        figure.insert(figure.index(image) + 1, night)
        names = {"PDF": ".pdf", "data (CSV)": "-data.csv"}
        line = _links({label: f"{picture.with_suffix('')}{end}" for label, end in names.items()}, self.env)
        if (GENERATED.parent / picture).with_name(f"{picture.parent.name}.ipynb").exists():
            line += [nodes.Text(SEPARATOR), notebook_link(picture.parent.relative_to(GENERATED.name), "notebook", self.env)]
        figure += nodes.legend("", line)
        return [figure]


class GeneratedTable(SphinxDirective, CSVTable):
    """The directive `csv-table`, with a link to its file."""

    def run(self) -> list[nodes.Node]:
        file = self.options.get("file", "")
        made = super().run()
        for cell in [cell for table in made for cell in table.findall(nodes.Text)]:
            plain = re.sub(r"-(0\.0+)(?!\d)", r"\1", cell)
            cell.parent.replace(cell, nodes.Text(re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", plain)))
        return [*made, _links({"table (CSV)": file}, self.env)] if file else made


def _links(files: dict[str, str], env) -> nodes.paragraph:  # noqa: ANN001 the environment of Sphinx
    """A line of links to files, given from the folder of the pages."""
    line = nodes.paragraph(classes=["files"])
    for label, target in files.items():
        line += [nodes.Text(SEPARATOR)] * bool(len(line))
        line += addnodes.download_reference(label, label, reftarget=f"/{target}", refdoc=env.docname)
    return line


def notebook_link(place: Path, text: str, env) -> nodes.Element:  # noqa: ANN001 the environment of Sphinx
    """A link to a notebook as it was run, by the folder of its output in `generated`."""
    target = f"/generated/{place.as_posix()}/{place.name}"
    options = {"refdomain": "std", "reftype": "doc", "reftarget": target, "refexplicit": True, "refwarn": True}
    return addnodes.pending_xref("", nodes.inline(text=text), refdoc=env.docname, **options)


class Provenance(SphinxDirective, Directive):
    """```{provenance} NOTEBOOK"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        origin = content(self.arguments[0], self.env)["provenance"]
        facts = {
            "Profile": f"{origin['profile']} ({origin['title']})",
            "Runs": f"{origin['runs']}; seeds {_list(origin['seeds'])}; source seeds {_list(origin['source_seeds'])}",
            "Commit": _list(origin["commits"]),
            "Versions": "; ".join(origin["versions"]),
            "Device": "; ".join(origin["devices"]),
            "Computing": f"{origin['computing']}, finished {origin['finished']}",
        }
        rows = [
            nodes.field("", nodes.field_name(text=name), nodes.field_body("", nodes.paragraph(text=text)))
            for name, text in facts.items()
        ]
        whence = "the notebook itself" if origin["profile"] == "none" else f"the profile {origin['profile']}"
        note = nodes.admonition(
            "",
            nodes.title(text=f"Where these results come from: {whence}"),
            nodes.field_list("", *rows),
            classes=["dropdown", "provenance"],
        )
        return [note]


def _list(values: list) -> str:
    return ", ".join(str(value) for value in values)


def setup(app: Sphinx) -> dict[str, object]:
    app.add_config_value("vpcore_profiles", ["mini"], "env")
    app.add_config_value("vpcore_again", {}, "env")
    app.connect("config-inited", run_notebooks, priority=100)
    for name, role in {"num": Number, "said": Said, "verdict": Verdict, "across": Across}.items():
        app.add_role(name, role())
    app.add_directive("figure", GeneratedFigure, override=True)
    app.add_directive("csv-table", GeneratedTable, override=True)
    app.add_directive("provenance", Provenance)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
