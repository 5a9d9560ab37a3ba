"""What the pages say of results: words of direction come from the records, and say the opposite when the records do."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from tests.report.inside import check
from tests.report.made_up import record
from vpcore.report import figure_files, overview, prose
from vpcore.study.profile import load_profile
from vpcore.study.tables import write_table

mpl.use("Agg")
ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
RESULTS = (
    "intro",
    "claims",
    "tickets",
    "accuracy",
    "budget",
    "calibration",
    "ways",
    "why",
    "choices",
    "defects",
    "explore",
    "trust",
)
# words that say which way a result goes
DIRECTION = re.compile(
    r"\b(worse|better|worsens?|improves?|fall(s|en)?|fell|rises?|rose|risen|drop(s|ped)?|los(es|t)|gain(s|ed)?|harm(s|ed|ful)?"
    r"|higher|lowers?|larger|smaller|(in|de)crease[sd]?|because of|not seen|fails?|costs? (more|less|nothing))\b"
    r"|\b(rise|loss|gain) of #",
    re.IGNORECASE,
)
# a verdict is said of the statement, or it is no result: a question, a condition, how to read a figure, what someone claims
OPEN = re.compile(
    r"!|\?|\b(if|where|when|whether|would|could|may|might|can|cannot|claims?|means?|as the paper|that (sparsity|its)"
    r"|(above|below) zero|(right|left) of zero|said|sign of the)\b",
    re.IGNORECASE,
)


def sentences(page: str) -> Iterator[str]:
    """The sentences of a page: a number is #, a word from the results !. Code, equations and files are left out."""
    text = re.sub(
        r"^(`{3,}|~{3,})\{(csv-table|provenance|math|literalinclude).*?^\1\s*$", "", page, flags=re.DOTALL | re.MULTILINE
    )
    text = re.sub(r"^:\w+:.*$|^\$\$.*?^\$\$.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{(said|verdict|across)\}`[^`]*`", "!", text)
    text = re.sub(r"\{num\}`[^`]*`", "#", text)
    text = re.sub(r"`[^`]*`|\$[^$]*\$|\([^()]*\.md\)", " ", text)
    for block in re.split(r"\n\s*\n|\n(?=[-|:#*])", text):
        yield from re.split(r"(?<=[.?:;])\s+", " ".join(block.split()))


def directed(page: str) -> list[str]:
    return [sentence for sentence in sentences(page) if DIRECTION.search(sentence) and not OPEN.search(sentence)]


@pytest.mark.parametrize("name", RESULTS)
def test_a_page_of_results_states_no_direction_by_itself(name: str) -> None:
    assert directed((BOOK / f"{name}.md").read_text()) == []


def test_a_role_in_a_row_of_a_table_escapes_its_bar() -> None:
    """A bar that is not escaped ends the cell, inside of a role as well."""
    rows = [line for path in BOOK.glob("*.md") for line in path.read_text().splitlines() if line.startswith("|")]
    assert any("\\|" in row for row in rows)
    assert [row for row in rows if re.search(r"\{\w+\}`[^`|]*(?<!\\)\|[^`|]*`", row)] == []


def test_directions_are_found() -> None:
    assert (
        len(
            directed(
                "Calibration gets worse at first and better later. It is so because of EuroSAT.\n\nA rise of {num}`a:b|pt`."
            )
        )
        == 3
    )
    assert directed("The cost of the paper is not seen here.")
    assert directed("ECE {said}`claims:c3|rise`, against C3. Does it fall? Above zero pruning harms.") == []


NOTEBOOKS = ("claims", "calibration", "accuracy", "budget")
PROFILE = """title = "Made up"
[[grid]]
method = ["vp", "lp"]
round = [0, 1, 2]
task = ["digits", "shapes", "textures"]
budget = [1, 10]
seed = [0, 1]
"""


@pytest.fixture(scope="module", params=[1, -1], ids=["harm", "gain"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """What the notebooks make of records in which compression harms, or the opposite; figures are checked as they come."""
    sign, folder = request.param, tmp_path_factory.mktemp("made")
    (folder / "made.toml").write_text(PROFILE)
    runs = load_profile(str(folder / "made.toml")).runs
    bins = {"bin_count": [400, 600], "bin_confidence": [0.3, 0.8], "bin_accuracy": [0.25, 0.7]}
    rows = [record(run, loss=0.03 * sign, shift=0.05 * sign) | bins for run in runs]
    write_table(folder / "made.parquet", pd.DataFrame(rows))

    def checked(figure: mpl.figure.Figure, path: Path, *, words: str = "") -> None:
        if sign > 0:  # once is enough
            check(figure)
        assert words or figure_files.description(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_files, "save", checked)
        for name in NOTEBOOKS if sign > 0 else NOTEBOOKS[:2]:
            cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            given = {"profile": str(folder / "made.toml"), "results": str(folder), "output": str(folder / name)}
            code.insert(1, "\n".join(f"{parameter} = {value!r}" for parameter, value in given.items()))
            names: dict[str, object] = {"In": code}
            for cell in code:
                exec(cell, names)
        yield sign, folder


def test_pages_say_what_the_tables_say(made: tuple[int, Path]) -> None:
    sign, folder = made
    numbers = {path.parent.name: json.loads(path.read_text())["numbers"] for path in folder.glob("*/numbers.json")}
    asked = 0
    for page in RESULTS:
        for role, notebook, key, words in re.findall(
            r"\{(said|verdict)\}`(\w+):([\w-]+)\\?\|?(\w*)`", (BOOK / f"{page}.md").read_text()
        ):
            if notebook in numbers:
                asked += 1
                if role == "verdict":
                    assert numbers[notebook][f"{key}_verdict"]
                else:
                    prose.said(numbers[notebook], key, words)
    assert asked > 15
    verdict = "supported" if sign > 0 else "contradicted"
    for key, words in {"c1": ("falls", "rises"), "c3_vp": ("rises", "falls"), "c3_lp": ("rises", "falls")}.items():
        found = prose.said(numbers["claims"], key, "fall" if key == "c1" else "rise")
        assert found.startswith(words[0] if sign > 0 else words[1])
        assert numbers["claims"][f"{key}_verdict"] == verdict
    table = pd.read_csv(folder / "calibration" / "rise.csv")
    for _, row in table.iterrows():
        assert (float(row["rise of ECE, points"].split()[0]) > 0) == (sign > 0)
        assert row["worse calibrated"] == verdict


def test_the_front_page_gathers_the_verdicts(made: tuple[int, Path]) -> None:
    sign, folder = made
    table = overview.found(folder)
    word = "supported" if sign > 0 else "contradicted"
    assert set(table["claim"]) >= {"C1", "C2", "C3"}
    assert overview.answers(table, "C1") == [(word, "on made")]
    figure = overview.forest_of_claims(table)
    check(figure)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown.count(word) == (table["verdict"] == word).sum()
