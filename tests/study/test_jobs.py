"""Jobs: what is missing, in blocks that follow the tickets."""

import itertools
from pathlib import Path

import pytest

from vpcore.study.jobs import blocks, jobs
from vpcore.study.profile import load_profile
from vpcore.study.run import Run, chain_id, run_id, source_run, ticket_run
from vpcore.study.store import Store


@pytest.mark.parametrize("name", ["mini", "methods", "real"])
def test_blocks_hold_every_run_once_and_come_after_those_they_need(name: str, tmp_path: Path) -> None:
    runs = load_profile(name, toy=True).runs
    todo = blocks(runs, Store(tmp_path, name))
    made: set[Run] = set()
    for block in todo:
        assert block.jobs[0].is_ticket
        assert made.issuperset(block.jobs[0].needs)
        made.add(block.ticket)
        assert block.jobs[0].runs == (block.ticket,)
        assert {ticket_run(run) for job in block.jobs for run in job.runs} == {block.ticket}
    assert len(made) == len(todo)  # a network has one block, so it is loaded once
    listed = [run_id(run) for block in todo for job in block.jobs for run in job.runs]
    assert len(listed) == len(set(listed))
    assert set(listed) >= {run_id(run) for run in runs}
    assert jobs(runs, Store(tmp_path, name)) == [job for block in todo for job in block.jobs]


def test_a_chain_is_followed_before_the_next_begins(tmp_path: Path) -> None:
    runs = [source_run(Run(round=number, source_seed=seed)) for number in (0, 1, 2) for seed in (5, 3)]
    todo = blocks(runs, Store(tmp_path, "own"))
    assert [(block.ticket.source_seed, block.ticket.round) for block in todo] == [
        (seed, number) for seed in (5, 3) for number in (0, 1, 2)
    ]


def test_a_quantized_network_is_made_once(tmp_path: Path) -> None:
    runs = [
        Run(method=method, task=task, budget=1, weight_bits=bits)
        for task in ("shapes", "digits")
        for bits in (4, 32, 8)
        for method in ("lp", "vp")
    ]
    (block,) = blocks(runs, Store(tmp_path, "own"))
    networks = [bits for bits, _ in itertools.groupby(job.runs[0].weight_bits for job in block.jobs)]
    assert networks == [32, 8, 4]


def test_thousands_of_rounds(tmp_path: Path) -> None:
    """More than Python can call functions within each other."""
    run = source_run(Run(rate=0.001, round=3000))
    todo = blocks((run,), Store(tmp_path, "own"))
    assert [block.ticket.round for block in todo] == list(range(3001))
    assert len({chain_id(block.ticket) for block in todo}) == 1
