"""What tests share: a data folder of real images, where there is one, and a study so small that it takes a second.

Tests named in `costly.txt` take a second or two of a core each, or repeat what a quicker one beside them shows; they are
slow ones as well: `make test` stays quick enough to be run at every change.
"""

import gc
import os
import shutil
from pathlib import Path

import pytest
import torch

from vpcore.study.profile import Profile
from vpcore.study.run import Run, source_run
from vpcore.study.store import Store

COSTLY = frozenset(Path(__file__).with_name("costly.txt").read_text().splitlines())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid in COSTLY:
            item.add_marker(pytest.mark.slow)


def pytest_sessionstart() -> None:
    """Hold off the collector of cycles while tests are gathered: modules and items stay, and it would walk over them all."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def real_data() -> Path:
    """The folder of Parquet image sets; tests that need it are skipped where there is none."""
    folder = os.environ.get("VPCORE_DATA")
    if not folder or not Path(folder, "cifar10").is_dir():
        pytest.skip("needs real image sets: set VPCORE_DATA to a folder that holds cifar10, tiny_imagenet, ...")
    return Path(folder)


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="session")
def tiny() -> Profile:
    """Two tickets of an undertrained network and a few transfers."""
    base = Run(source_per_class=4, source_epochs=2, source_batch=64, epochs=2, test_per_class=4)
    runs = {}
    for number in (0, 1):
        for method in ("vp", "lp"):
            for seed in (0, 1):
                run = Run(**{**vars(base), "round": number, "method": method, "task": "shapes", "budget": 1, "seed": seed})
                runs |= {source_run(run): None, run: None}
    return Profile("tiny", "Tiny", "for tests", {}, False, {"main": tuple(runs)})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def results(tmp_path: Path, cache: Path) -> Path:
    """An empty folder for results that shares decoded images with the other tests."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "cache").symlink_to(cache)
    return folder


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> Store:
    """An empty store that shares decoded images with the other tests."""
    store = Store(tmp_path / "results", "tiny")
    store.cache = cache
    return store


@pytest.fixture(scope="session")
def computed(tiny: Profile, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the study `tiny`, computed once for all tests, which copy them."""
    from vpcore.study.execution import execute

    store = Store(tmp_path_factory.mktemp("computed"), "tiny")
    store.cache = cache
    assert {done.error for done in execute(tiny.runs, store, device=torch.device("cpu"))} == {None}
    return store.results


@pytest.fixture
def finished(store: Store, computed: Path) -> Store:
    """The store of the test, in which the study `tiny` is done."""
    shutil.copytree(computed, store.results, dirs_exist_ok=True)
    return store
