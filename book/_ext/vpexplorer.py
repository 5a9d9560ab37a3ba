"""The explorer: one interactive plot of every committed measurement, which asks nothing of the network.

    ```{explorer}

puts the controls, the data (`vpcore.report.explorer`, inside the page, since a page that is opened from a folder may not
read files) and the scripts into the page: Observable Plot and d3, in vendor/plot, and explorer/explorer.js.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from vpbook import GENERATED

CONTROLS = {"study": "Study and compression", "task": "Task", "budget": "Training images", "metric": "Shown"}
METHODS = {"both": "both", "vp": "visual prompting", "lp": "linear probing"}


def controls() -> str:
    """The form: native controls, each with its label."""
    selects = "".join(f'<label>{label}<select name="{name}"></select></label>' for name, label in CONTROLS.items())
    radios = "".join(
        f'<label><input type="radio" name="method" value="{value}"{" checked" * (value == "both")}> {text}</label>'
        for value, text in METHODS.items()
    )
    network = '<label>Network in detail<select name="network"></select></label>'
    return f"<form>{selects}<fieldset><legend>Method</legend>{radios}</fieldset>{network}</form>"


PAGE = f"""
<link rel="stylesheet" href="explorer.css">
<noscript><p>The plot needs JavaScript; its numbers are in the file below.</p></noscript>
<div id="explorer" class="explorer">
{controls()}
<div data-part="legend" class="explorer-legend" aria-hidden="true"></div>
<div data-part="curve"></div>
<p data-part="said" aria-live="polite"></p>
<details><summary>The numbers as a table</summary><div data-part="table" tabindex="0"></div></details>
<h2>Confidence and accuracy</h2>
<div data-part="detail"></div>
<h2>Label mapping</h2>
<details open><summary>Which source class stands for each target class</summary>
<div data-part="mapping" tabindex="0"></div></details>
</div>
<script src="plot/d3.min.js"></script><script src="plot/plot.umd.min.js"></script>
"""


class Explorer(SphinxDirective):
    """```{explorer}"""

    def run(self) -> list[nodes.Node]:
        path = GENERATED / "explorer" / "explorer.json"
        self.env.note_dependency(str(path))
        data = path.read_text().replace("</", "<\\/")
        script = f'<script type="application/json" id="explorer-data">{data}</script><script src="explorer.js"></script>'
        return [nodes.raw("", PAGE + script, format="html")]


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("explorer", Explorer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
