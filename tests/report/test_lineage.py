"""The graph of what pages are made from says what pages, notebooks and records say."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.report.inside import check
from vpcore.report import lineage

PAGES = {
    "First": "{num}`tickets:kept|.1%`\n```{figure} generated/small/claims/claims.svg\n```",
    "Second": "{provenance} own\nand {across}`C5`, which no notebook here tests; {num}`nowhere:x`",
    "Third": "no results",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    letters = {"profile": "mini", "commits": ["abc"], "adapted": [["digits", "resnet8, trained on glyphs"]]}
    real = {"profile": "small", "commits": ["d", "e", "f"], "adapted": [["svhn", "resnet18, trained on tiny_imagenet"]]}
    here = {"profile": "none", "commits": ["g"], "adapted": []}
    for place, origin in {"tickets": letters, "small/claims": real, "own": here}.items():
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{Path(place).name}.ipynb").touch()
        (tmp_path / place / "numbers.json").write_text(json.dumps({"numbers": {}, "provenance": origin}))
    return tmp_path


def test_every_edge_is_said_by_a_page_or_a_notebook(folder: Path) -> None:
    found = lineage.edges(PAGES, folder)
    of_pages = found[found["target_kind"] == "page"]
    assert sorted(zip(of_pages["source"], of_pages["target"], strict=True)) == [
        ("own", "Second"), ("small/claims", "First"), ("tickets", "First"),
    ]  # fmt: skip
    chain, end = ["svhn"], "svhn"
    for kind in lineage.KINDS[1:]:
        end = found.loc[(found["source"] == end) & (found["target_kind"] == kind), "target"].iloc[0]
        chain.append(end)
    assert chain == ["svhn", "resnet18, trained on tiny_imagenet", "Tiny-ImageNet (small)", "small/claims", "First"]
    assert found.loc[found["target"] == "own", "source"].tolist() == [lineage.HERE]
    assert lineage.commits(folder) == {"letters (mini)": ["abc"], "Tiny-ImageNet (small)": ["d", "e", "f"]}


def test_the_picture_holds_every_name_and_is_drawn_once(folder: Path) -> None:
    table = lineage.edges(PAGES, folder)
    figure = lineage.graph(table, lineage.commits(folder))
    check(figure)
    shown = " ".join(text.get_text().replace("\n", ", ") for text in figure.axes[0].texts)
    assert all(name in shown for name in {*table["source"], *table["target"], "abc", "d e, f"})
    lineage.write(PAGES, folder)
    path = folder / "lineage" / "lineage.svg"
    before = path.stat().st_mtime_ns
    lineage.write(PAGES, folder)
    assert path.stat().st_mtime_ns == before
    kept = pd.read_csv(folder / "lineage" / "lineage-data.csv")
    assert len(kept) == len(table)
    lineage.write(PAGES | {"Fourth": "{num}`own:x`"}, folder)
    assert path.stat().st_mtime_ns > before
