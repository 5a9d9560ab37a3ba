"""What the tests of the built book share: the pages of a toy, built once for all workers."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.report.clones import clone_to, run


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages, which stays as it is; VPCORE_PAGES names one that was built before."""
    if "VPCORE_PAGES" in os.environ:
        return Path(os.environ["VPCORE_PAGES"])
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # the folder that all workers share
    clone = base / "pages" / "vpcore"
    with FileLock(base / "pages.lock"):
        if not (clone / "_build" / "html" / "index.html").exists():
            built = run(clone_to(clone), "jupyter-book", "build", "book/", "-W", "-n", "--keep-going")
            assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return clone / "_build" / "html"
