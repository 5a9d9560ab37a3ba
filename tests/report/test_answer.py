"""The page of the answer on made-up records: it says what was put in, and the opposite when the signs are flipped."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.report.made_up import records
from vpcore.study.profile import load_profile
from vpcore.study.tables import write_table

PAGE = Path(__file__).parents[2] / "book" / "answer.md"


def page(made: Path) -> str:
    """The text of the page with its numbers; refused when it shows something that the notebooks do not make."""
    text = PAGE.read_text()
    folders = {"answer": made / "answer", "real/claims": made / "claims", "real/why": made / "why"}
    for name in re.findall(r"generated/([\w/]+\.\w+)", text):
        folder, _, file = name.rpartition("/")
        assert (folders[folder] / file).stat().st_size > 0, name
    known = {name: json.loads((folder / "numbers.json").read_text())["numbers"] for name, folder in folders.items()}

    def told(match: re.Match) -> str:
        notebook, key = match[1].split(":")
        assert known[notebook][key] is not None, match[1]
        return str(known[notebook][key])

    text = re.sub(r"\{verdict\}`([^`|]+)`", r"**{num}`\1_verdict`**", text)
    return re.sub(r"\{num\}`([^`|]+)`", told, text)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_the_page_says_what_was_put_into_the_records(tmp_path: Path, sign: int) -> None:
    made_up = records(load_profile("real"), loss=0.06 * sign, shift=0.05 * sign)
    write_table(tmp_path / "real.parquet", made_up)
    only = [part for name in ("answer", "claims", "why") for part in ("--only", name)]
    command = [sys.executable, "-m", "vpcore", "book", "--profile", "real", "--results", str(tmp_path), *only]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    made = tmp_path / "real" / "book"
    text = page(made)
    harm, harmless = ("supported", "contradicted") if sign > 0 else ("contradicted", "supported")
    said = dict(re.findall(r"^(C\d)\n: [^*]*\*\*([^*]+)\*\*", text, flags=re.MULTILINE))
    assert said == {claim: harm for claim in ("C1", "C2", "C3", "C4", "C5")} | {"C6": harmless}
    assert "in visual prompting c1 is flipped by masks undone" in " ".join(text.lower().split())
    controls = pd.read_csv(made / "claims" / "controls.csv").set_index("of")
    assert controls.loc["visual prompting", "verdict"] == "supported"  # what is made up of it does not flip
    counts = json.loads((made / "why" / "numbers.json").read_text())["numbers"]
    assert counts[f"c1_{harm}"] > 0.9 * counts["c1_analyses"]
    assert counts[f"c1_{harmless}"] == 0
