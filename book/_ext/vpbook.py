"""What our pages need of Sphinx: notebooks that are up to date, and numbers that come from them.

On `config-inited`, before Sphinx looks for documents, the study is completed and the notebooks are run through papermill
(those that are missing or out of date), so that `jupyter-book build book/` is all there is to do. A notebook that fails
fails the build.

    {num}`accuracy:vp_dense|.1%`     the number vp_dense of generated/accuracy/numbers.json, formatted; unknown keys fail
    {num}`accuracy:vp_loss|points`   the same as percentage points: "4.2 points", or with |pt just "4.2"
    ```{provenance} accuracy         what the results of a page come from
    ```

What a notebook says of another profile lies in a folder of that name: its numbers are {num}`PROFILE/accuracy:vp_dense|.1%`.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from vpcore.errors import InputError
from vpcore.report import batch
from vpcore.study.profile import load_profile

LOGGER = logging.getLogger(__name__)
POINTS = {"points": " points", "pt": ""}  # 0.042 is 4.2 percentage points
GENERATED = Path(__file__).resolve().parent.parent / "generated"


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
    try:
        for number, profile in enumerate(dict.fromkeys(profiles)):
            toy = number == 0 and os.environ.get("VPCORE_TOY", "") == "1"
            shown = batch.fitting(load_profile(profile, toy=toy)) + (batch.of_no_profile() if number == 0 else ())
            mine = tuple(name for name in shown if name not in taken)
            taken |= set(mine)
            if mine:
                batch.regenerate(GENERATED, profile=profile, toy=toy, only=mine, log=log)
        for profile, notebooks in config.vpcore_again.items():
            batch.regenerate(GENERATED / profile, profile=profile, only=tuple(notebooks), log=log)
    except InputError as error:
        raise ExtensionError(f"the notebooks of the book could not be brought up to date: {error}") from error


def _content(notebook: str, env) -> dict:  # noqa: ANN001 the environment of Sphinx
    path = GENERATED / notebook / "numbers.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text())


class Number(SphinxRole):
    """{num}`NOTEBOOK:KEY|FORMAT`"""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        reference, _, how = self.text.partition("|")
        notebook, _, key = reference.partition(":")
        try:
            value = _content(notebook, self.env)["numbers"][key]
            text = f"{100 * value:.1f}{POINTS[how]}" if how in POINTS else format(value, how)
        except (OSError, KeyError, ValueError, TypeError) as error:
            message = self.inliner.reporter.error(f"no number {self.text!r}: {error!r}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.inline(text, text.replace("-", "\u2212") if how else text)], []


class Provenance(SphinxDirective, Directive):
    """```{provenance} NOTEBOOK"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        origin = _content(self.arguments[0], self.env)["provenance"]
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
    app.add_role("num", Number())
    app.add_directive("provenance", Provenance)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
