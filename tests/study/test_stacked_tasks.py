"""Tasks that are learned together, as on a GPU: each member learns what it learns alone, and its record is its own."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpcore.data.images import Images
from vpcore.networks.frozen import Frozen
from vpcore.prompting.visual_prompting import visual_prompt
from vpcore.study import adaptation
from vpcore.study.adaptation import Task, joined
from vpcore.study.execution import execute
from vpcore.study.jobs import Job, jobs
from vpcore.study.replay import replay
from vpcore.study.run import Run, canonical, run_id, source_run
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.study.workers import compute

BASE = Run(source_per_class=4, source_epochs=2, epochs=3, batch=8, budget=2, test_per_class=4, robustness_images=6)
MEMBERS = [("shapes", 0), ("shapes", 1), ("digits", 1), ("glyphs", 0)]  # the last has other numbers of classes and images
RUNS = tuple(
    canonical(dataclasses.replace(BASE, method=method, task=name, seed=seed))
    for method in ("vp", "lp")
    for name, seed in MEMBERS
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Store:
    """A store with the network alone."""
    store = Store(tmp_path_factory.mktemp("alone"), "tiny")
    store.cache = cache
    done = list(execute((source_run(BASE),), store, device=torch.device("cpu")))
    assert [d.error for d in done] == [None]
    return store


@pytest.fixture(scope="module")
def alone(source: Store) -> Store:
    """The same store, in which each task was learned on its own."""
    done = list(execute(RUNS, source, device=torch.device("cpu")))
    assert [d.error for d in done] == [None] * 6
    return source


@pytest.fixture
def empty(source: Store, tmp_path: Path) -> Store:
    """Another one, with the same network and nothing that was measured on it."""
    other = Store(tmp_path / "together", "tiny")
    other.cache = source.cache
    other.results.mkdir()
    (other.results / "tickets").symlink_to(source.results / "tickets")
    return other


def together(store: Store, cpu: torch.device) -> list[Job]:
    todo = jobs(RUNS, store, across_tasks=True)
    for job in todo:
        outcome = compute(job, Session(store, cpu))
        assert outcome.error is None, outcome.text
    return todo


def assert_same(ours: Store, theirs: Store, *, cut: bool = False) -> None:
    """`cut`: prompts of a task were learned apart, and so the loss of each is its own, not their mean."""
    for run in RUNS:
        (one,), (other,) = (store.table((run,)).to_dict("records") for store in (ours, theirs))
        for name in ("train_images", "classes", "data", "cohort", "images", "set_coverage", "accuracy", "corruption"):
            assert one[name] == other[name], name
        if run.method == "vp":
            assert one["mapped_names"] == other["mapped_names"]
            assert cut or one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        else:
            assert one["cka"] == pytest.approx(other["cka"], rel=1e-4)
        for name, value in ours.arrays(run).items():
            torch.testing.assert_close(value, theirs.arrays(run)[name], rtol=1e-3, atol=1e-3)


def test_tasks_learned_together_are_learned_as_if_alone(alone: Store, empty: Store, cpu: torch.device) -> None:
    todo = together(empty, cpu)
    assert [len(job.runs) for job in todo] == [4, 4]
    assert "3 tasks 2-shot, round 0, 2 seeds" in str(todo[0])
    assert_same(empty, alone)
    company = {run.task: empty.table((run,)).iloc[0].get("company") for run in RUNS if run.method == "vp"}
    assert company["shapes"] == company["digits"] == ["shapes 0", "shapes 1", "digits 1"]
    assert not isinstance(company["glyphs"], list)  # it was learned alone
    assert jobs(RUNS, empty, across_tasks=True) == jobs(RUNS, empty) == []


def test_tasks_learned_together_have_one_file_or_none(
    empty: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its process is killed half-way, or the learning of one of them fails after that of others."""
    job, real, learned = jobs(RUNS, empty, across_tasks=True)[1], visual_prompt, []

    def fail(network: Frozen, train: Images, **settings: object) -> object:
        learned.append(train)
        if len(learned) == 2:  # the task of another shape
            raise RuntimeError("no luck")
        return real(network, train, **settings)

    monkeypatch.setattr(adaptation, "visual_prompt", fail)
    assert str(compute(job, Session(empty, cpu)).error) == "no luck"
    assert not (empty.root / "records").exists()
    monkeypatch.setattr(adaptation, "visual_prompt", real)
    assert compute(job, Session(empty, cpu)).error is None
    (path,) = (empty.root / "records").glob("*.json")
    assert path.name.startswith("vp-3tasks-2-round0-seed0+1-")
    assert {record["id"] for record in empty.records()} == set(map(run_id, job.runs))


def test_they_are_computed_again_as_they_were(empty: Store, cpu: torch.device) -> None:
    together(empty, cpu)
    again = list(replay(RUNS, empty, count=100, seed=0, device=cpu))
    assert [one.differences for one in again] == [{}] * len(RUNS)


def test_memory_that_runs_out_changes_no_result(
    alone: Store, empty: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a GPU that holds few prompts at a time, as `visual_prompt` finds out while it trains."""
    tried: list[int] = []

    def cramped(network: Frozen, train: Images, *, seeds: list[int], **settings: object) -> object:
        tried.append(len(seeds))
        if len(seeds) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return visual_prompt(network, train, seeds=seeds, **settings)

    monkeypatch.setattr(adaptation, "visual_prompt", cramped)
    together(empty, cpu)
    assert tried == [3, *[1] * 3, 1]
    assert_same(empty, alone, cut=True)


def test_a_network_with_little_memory_gives_the_same_records(
    alone: Store, empty: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a GPU that shows a network few images at a time, in training and in prediction."""
    real: Callable[..., Tensor] = Frozen.forward
    refused: list[int] = []

    def cramped(network: Frozen, images: Tensor) -> Tensor:
        if images.shape[0] > 16:
            refused.append(images.shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, images)

    monkeypatch.setattr(Frozen, "forward", cramped)
    together(empty, cpu)
    assert 24 in refused  # three prompts of 8 images each
    assert max(refused) > 24  # predictions
    assert_same(empty, alone, cut=True)


def test_what_failed_in_company_is_tried_alone(store: Store) -> None:
    """So that a task that cannot be learned holds up no other."""
    store.write_failure(RUNS[2], "no luck")
    cohorts = [[(run.task, run.seed) for run in job.runs] for job in jobs(RUNS[:4], store, across_tasks=True)[1:]]
    assert sorted(cohorts) == [[("digits", 1)], [("shapes", 0), ("shapes", 1), ("glyphs", 0)]]


@pytest.mark.parametrize("variant", [
    {"selection": "test"}, {"method": "lp", "probe": "optimum"}, {"method": "lp", "selection": "val"}, {"method": "ft"},
])  # fmt: skip
def test_what_looks_at_the_images_of_its_task_is_learned_alone(variant: dict, store: Store) -> None:
    runs = [dataclasses.replace(BASE, **{"method": "vp", **variant}, task=name) for name in ("shapes", "digits")]
    todo = [job for job in jobs(tuple(map(canonical, runs)), store, across_tasks=True) if not job.is_ticket]
    assert [len(job.runs) for job in todo] == [1, 1]


def test_members_keep_their_images_and_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for size in (7, 12):
        images = torch.randint(256, (size, 3, 2, 2), generator=generator).to(torch.uint8)
        labels = torch.randint(3, (size,), generator=generator)
        index = torch.randint(size, (2, 4), generator=generator)
        tasks.append(Task((), Images(images, labels, ("a", "b", "c")), index, {}))
    values, labels, index = joined(tasks, [task.train.images for task in tasks])
    assert len(values) == len(labels) == sum(len(task.index.unique()) for task in tasks)
    for number, task in enumerate(tasks):
        rows = index[2 * number : 2 * number + 2]
        assert torch.equal(values[rows], task.train.images[task.index])
        assert torch.equal(labels[rows], task.train.labels[task.index])
