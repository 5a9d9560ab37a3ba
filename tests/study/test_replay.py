import json
from pathlib import Path

import pytest
import torch

from vpcore import InputError
from vpcore.study.profile import Profile
from vpcore.study.replay import replay
from vpcore.study.store import Store
from vpcore.study.tables import write_table


@pytest.mark.usefixtures("finished")
def test_records_come_out_again_and_nothing_is_written(tiny: Profile, store: Store, cpu: torch.device) -> None:
    before = {path: path.read_bytes() for path in store.results.rglob("*") if path.is_file()}
    again = list(replay(tiny.runs, store, count=100, seed=0, device=cpu))
    assert {one.run for one in again} == set(tiny.runs)
    assert [one.differences for one in again] == [{}] * len(again)
    assert all(one.same_place for one in again)
    assert {path: path.read_bytes() for path in store.results.rglob("*") if path.is_file()} == before
    assert len(list(replay(tiny.runs, store, count=2, seed=0, device=cpu))) == 2


@pytest.mark.usefixtures("finished")
def test_a_number_that_changed_is_told(tiny: Profile, store: Store, cpu: torch.device) -> None:
    table = store.table(tiny.runs)
    table.loc[table["method"] == "lp", "ece"] += 0.5
    table.loc[table["method"] == "vp", "processor"] = "another"
    for path in (store.root / "records").glob("*.json"):
        path.unlink()
    write_table(store.published, table)
    again = list(replay(tiny.runs, Store(store.results, "tiny"), count=100, seed=0, device=cpu))
    for one in again:
        assert set(one.differences) == ({"ece"} if one.run.method == "lp" else set())
        assert one.same_place is (one.run.method != "vp")


def test_without_tickets_there_is_nothing_to_compute(tiny: Profile, store: Store, cpu: torch.device, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no record of tiny in .* whose ticket is there, too"):
        list(replay(tiny.runs, store, count=3, seed=0, device=cpu))


@pytest.mark.usefixtures("finished")
def test_a_cohort_is_computed_as_a_cohort(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """In one pass with the seeds that it was computed with: in bf16 another size of batch gives other roundings."""
    record = json.loads(store.record_path(next(run for run in tiny.runs if run.method == "vp")).read_text())["records"][0]
    assert record["cohort"] == [0, 1]
