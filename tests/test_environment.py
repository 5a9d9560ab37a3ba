"""One source of truth: pyproject.toml names the packages, constraints.txt their versions, everything else refers to them."""

import re
import tomllib
from pathlib import Path

import vpcore

ROOT = Path(__file__).parent.parent
EXTRAS = ".[book,imagenet,fetch,wandb,cluster,test]"


def pins() -> dict[str, str]:
    lines = (line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {re.sub(r"[-_.]+", "-", name.lower()): version for name, version in (line.split("==") for line in lines if line)}


def test_every_package_is_pinned_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for packages in project["optional-dependencies"].values():
        wanted += packages
    names = {re.match(r"[\w.-]+", package)[0].lower() for package in wanted}
    assert names <= set(pins())


def test_conda_and_make_install_the_same() -> None:
    conda = (ROOT / "environment.yml").read_text()
    listed = [line.strip(" -") for line in conda[conda.index("- pip:") :].splitlines()[1:]]
    assert [line.split() for line in listed] == [["constraint", "constraints.txt"], ["editable", EXTRAS]]
    assert f"--constraint constraints.txt --editable '{EXTRAS}'" in (ROOT / "Makefile").read_text()


def test_torch_and_torchvision_fit() -> None:
    import torch
    import torchvision

    assert torch.__version__.split("+")[0] == pins()["torch"]
    assert torchvision.__version__.split("+")[0] == pins()["torchvision"]


def test_no_host_of_a_registry_is_named() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_the_version_stands_in_one_place_and_is_cited() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vpcore.__version__"}
    assert f"\nversion: {vpcore.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {vpcore.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_shows_every_room() -> None:
    tree = (ROOT / "README.md").read_text().split("## How to read")[1].split("```")[1]
    rooms = {path.parent.name for path in (ROOT / "vpcore").glob("*/__init__.py")}
    shown = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    assert shown == rooms
    assert set(re.findall(r"(\w+\.py)", tree.split("commands/")[1])) >= {"errors.py", "files.py", "faces.py"}
