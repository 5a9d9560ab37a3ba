"""The store: what was written is found again, and nothing else is taken for a record."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vpcore import InputError
from vpcore.study import store as store_module
from vpcore.study.jobs import jobs
from vpcore.study.run import Run, run_id, source_run
from vpcore.study.store import Store

PAIR = Run(method="lp", task="shapes", budget=1), Run(method="lp", task="shapes", budget=1, seed=1)
OTHER = source_run(Run())


def write(store: Store, *runs: Run) -> Path:
    store.write(runs, [{"accuracy": 0.5} for _ in runs], [{} for _ in runs])
    return store.record_path(runs[0])


def test_a_record_is_found_by_its_run(store: Store) -> None:
    path = write(store, *PAIR)
    assert store.done() == set(map(run_id, PAIR))
    assert store.table()[["id", "seed", "accuracy"]].to_numpy().tolist() == [[run_id(r), r.seed, 0.5] for r in PAIR]
    assert path == store.record_path(PAIR[1])
    assert [path] == list(path.parent.glob("*"))


def resealed(text: str) -> str:
    """A whole file of no records, which says its own SHA-256."""
    return json.dumps({"sha256": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945", "records": []})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "{}",
        lambda text: "[]",
        lambda text: "null",
        lambda text: '{"records": []}',
        resealed,
        lambda text: text.replace("0.5", "NaN"),
        lambda text: text.replace("0.5", "0.6"),
        lambda text: text.replace(run_id(PAIR[0]), run_id(OTHER)),
        lambda text: "\udcff" + text,  # not UTF-8
    ],
    ids=["empty", "cut", "{}", "[]", "null", "unsealed", "no records", "NaN", "number", "id", "bytes"],
)
def test_a_damaged_file_is_refused_its_runs_are_missing_and_it_is_set_aside_when_asked(
    store: Store, damage: Callable[[str], str]
) -> None:
    write(store, OTHER)
    path = write(store, *PAIR)
    whole = path.read_bytes()
    path.write_bytes(broken := damage(whole.decode()).encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=rf"the record .*{re.escape(path.name)} is damaged .*`vpcore run`"):
        store.table()
    with pytest.warns(UserWarning, match=rf"{re.escape(path.name)} is damaged .*`vpcore run`"):
        todo = jobs((OTHER, *PAIR), store)
    assert todo[-1].runs == PAIR
    assert not any(OTHER in job.runs for job in todo[1:])  # the first makes the ticket
    assert path.read_bytes() == broken  # who looks moves nothing
    with pytest.warns(UserWarning, match=rf"{re.escape(path.name)} is damaged .* {re.escape(path.name)}\.damaged"):
        store.set_aside_damaged()
    assert not path.exists()
    assert path.with_name(f"{path.name}.damaged").read_bytes() == broken
    assert store.done() == {run_id(OTHER)}  # and nothing is said again
    assert write(store, *PAIR).read_bytes() == whole


def test_a_record_under_the_name_of_another_run_is_none_of_it(store: Store) -> None:
    path, name = write(store, OTHER), store.record_path(PAIR[0])
    name.write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="its name is that of other runs"):
        assert store.done() == {run_id(OTHER)}
    assert path.exists()


def test_a_file_that_was_made_anew_meanwhile_is_not_set_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(store, *PAIR)
    whole = path.read_bytes()
    path.write_text("cut off")

    def read(name: Path, changed: int) -> list:
        path.write_bytes(whole)  # by another process, just after this one has read it
        os.utime(path, ns=(changed + 1, changed + 1))
        raise InputError("damaged")

    monkeypatch.setattr(store_module, "_read_records", read)
    store.set_aside_damaged()
    assert path.read_bytes() == whole
