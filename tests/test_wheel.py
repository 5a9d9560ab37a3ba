"""What `python -m build` makes of a checkout, installed where there is nothing but what it requires."""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_ten_lines import lines, write_images

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def tracked(*folders: str) -> list[str]:
    """The files that git knows, or will, in some folders of the project."""
    return run("git", "ls-files", "-co", "--exclude-standard", *folders, cwd=ROOT).splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is made from it."""
    clean, out = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("dist")
    for name in filter(lambda name: (ROOT / name).exists(), tracked("vpcore", "pyproject.toml", "README.md", "LICENSE")):
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clean / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, clean, cwd=out)
    return out


def required(name: str, found: set[str]) -> set[str]:
    """A package and all that it requires without extras, as far as they are installed here."""
    if name not in found:
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # such as torch's CUDA libraries, on a machine that has none
            return found
        found.add(name)
        for requirement in map(Requirement, wanted):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                required(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python in an environment that has the wheel and the packages that it requires, which are linked from this one."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (wheel,) = built.glob("*.whl")
    for name in required("vpcore", set()) - {"vpcore"}:
        files = importlib.metadata.distribution(name).files or []
        for top in {Path(file).parts[0] for file in files} - {"..", "__pycache__"}:
            source = Path(importlib.metadata.distribution(name).locate_file(top))
            if not (site / top).exists():
                (site / top).symlink_to(source)
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel),
        cwd=folder,
    )
    return python


def test_a_wheel_and_an_sdist_hold_every_module_and_profile(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    wanted = {name for name in tracked("vpcore") if (ROOT / name).exists()}
    assert {"vpcore/study/profiles/mini.toml", "vpcore/pruning/masks.py"} <= wanted
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in inside if not name.startswith("vpcore-")} == wanted
    with tarfile.open(sdist) as archive:
        assert wanted <= {name.partition("/")[2] for name in archive.getnames()}


def test_it_is_installed_without_extras(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, vpcore
absent = [name for name in ("matplotlib", "papermill", "timm", "sklearn", "pytest") if importlib.util.find_spec(name)]
print(vpcore.__file__, absent)
from vpcore.study.profile import load_profile, profile_names
for name in profile_names():
    load_profile(name)
for name in vpcore.__all__:
    getattr(vpcore, name)
"""
    where, absent = run(installed, "-W", "error", "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert Path(where).is_relative_to(installed.parents[1])
    assert absent.strip() == "[]"
    assert "vpcore, version" in run(installed.parent / "vpcore", "--version", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("book",), "book"),
        (("run", "--quiet"), "book"),
        (("bench", "--model", "deit-tiny"), "imagenet"),
        (("fetch", "eurosat", "--data", ".", "--revision", "0" * 40), "fetch"),
        (("run", "--wandb"), "wandb"),
    ],
)
def test_what_needs_an_extra_says_so(installed: Path, tmp_path: Path, arguments: tuple[str, ...], extra: str) -> None:
    command = [installed.parent / "vpcore", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert f"pip install 'vpcore[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_ten_lines_of_the_readme_run_there(installed: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", train=2, test=3)
    given = """
from pathlib import Path
import torch
from torchvision.models import shufflenet_v2_x0_5
model, path, root = shufflenet_v2_x0_5(num_classes=10), Path("ticket.safetensors"), Path("images")
logits, labels = torch.randn(60, 5), torch.arange(60) % 5
"""
    shown = "print(prompt(test.images).shape, len(masks), path.exists())"
    out = run(installed, "-W", "error", "-c", f"{given}{lines()}{shown}", cwd=tmp_path)
    assert out.strip() == "torch.Size([1, 6, 2]) 55 True"
