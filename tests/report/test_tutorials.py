"""The tutorials show the lines that their notebooks run, and these run without a notebook as well."""

import ast
import copy
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.test_ten_lines import write_images
from vpcore.report import calibration_plots, plots
from vpcore.report.parameters import assigned

ROOT = Path(__file__).parents[2]


def shown(tutorial: str) -> list[str]:
    """The blocks of Python of a section of the page of tutorials."""
    sections = re.split(r"^## ", (ROOT / "book" / "tutorial.md").read_text(), flags=re.MULTILINE)
    text = sections[1 + ["tutorial", "own"].index(tutorial)]
    return [block.strip() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


class Filled(ast.NodeTransformer):
    """Values in the place of parameters."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.values[node.id]) if node.id in self.values else node


@pytest.mark.parametrize("name", ["tutorial", "own"])
def test_a_page_shows_what_its_notebook_runs(name: str) -> None:
    """All cells of lines, with the values of the parameters filled in; a figure is saved besides."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    values = assigned(source["parameters"])
    run = [text.split("\nstudy.save_figure(")[0] for identity, text in source.items() if identity.endswith("-lines")]
    filled = [ast.unparse(Filled(values).visit(ast.parse(text))) for text in run]
    assert [ast.unparse(ast.parse(block)) for block in shown(name)] == filled


def test_the_lines_on_ones_own_network_run(tmp_path: Path) -> None:
    write_images(tmp_path, train=4, test=6)
    names = {"root": tmp_path, "torch": torch, "nn": nn, "copy": copy}
    names |= {"plots": plots, "calibration_plots": calibration_plots}
    for block in shown("own"):
        exec(block.replace("per_class=60", "per_class=2"), names)
    dense, sparse = names["dense"], names["sparse"]
    kept = sum(int((sparse.get_parameter(name) != 0).sum()) for name in names["masks"])
    assert kept == round(0.1 * sum(mask.numel() for mask in names["masks"].values()))
    assert not torch.equal(dense[4].weight, sparse[4].weight)
    assert {name: len(z) for name, z in names["logits"].items()} == {"dense": 12, "pruned": 12}
    assert all(0 <= table.ece <= 1 for table in names["bins"].values())
    assert names["figure"].axes[0].get_title().startswith("dense: accuracy")
