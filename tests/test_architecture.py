"""The direction of imports, and what the core may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vpcore"

# module -> modules of the package that it may import; data flows down this list
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    # images
    "synthetic": {"errors"},
    "splits": {"errors"},
    "image_sets": {"errors", "splits"},
    "parquet": {"errors", "image_sets", "splits"},
    "torchvision_sets": {"errors", "image_sets", "splits"},
    "coop": {"errors", "image_sets", "splits"},
    "hub": {"errors", "parquet"},
    "fake_sets": {"coop", "errors", "imagenet"},
    "data": {"coop", "errors", "files", "hub", "image_sets", "parquet", "splits", "synthetic", "torchvision_sets"},
    # networks
    "rounding": set(),
    "framed": {"rounding"},
    "models": {"errors"},
    "frozen": {"errors", "framed", "models"},
    "imagenet": {"errors"},
    "training": {"errors", "models"},
    "pruning": {"errors"},
    "patterns": {"errors", "pruning"},
    "posttraining": {"errors", "pruning"},
    "sparse_training": {"errors", "patterns", "pruning", "training"},
    "tickets": {"errors", "files", "models", "pruning"},
    "sparsifiers": {"errors", "models", "patterns", "posttraining", "pruning", "sparse_training", "tickets", "training"},
    "rounds": {"errors", "models", "pruning", "sparse_training", "sparsifiers", "tickets", "training"},
    "weight_files": {"errors", "pruning", "tickets"},
    "checkpoints": {"errors", "frozen", "models", "pruning", "tickets", "weight_files"},
    "quantization": {"errors", "frozen", "rounding"},
    # transfer
    "optimisation": set(),
    "smm": {"errors"},
    "prompting": {"errors", "framed", "models", "smm"},
    "mapping": {"errors"},
    "transfer": {"errors", "frozen", "mapping", "optimisation", "prompting", "training"},
    "probing": {"errors", "optimisation", "training"},
    "finetuning": {"frozen", "models", "pruning", "sparse_training", "training"},
    # metrics
    "predictions": {"errors"},
    "calibration": {"errors", "predictions"},
    "smooth": {"errors", "predictions"},
    "scores": {"calibration", "errors", "predictions"},
    "legacy": {"calibration", "errors", "predictions"},
    "recalibration": {"calibration", "errors", "predictions"},
    "metrics": {"calibration", "legacy", "predictions", "scores", "smooth"},
    # the study
    "runs": {"errors", "mapping", "pruning", "sparsifiers"},
    "profiles": {
        "checkpoints", "errors", "mapping", "models", "prompting", "pruning", "quantization", "runs", "sparsifiers",
        "training",
    },
    "store": {"errors", "files", "runs", "tickets"},
    "networks": {
        "checkpoints", "data", "errors", "frozen", "imagenet", "models", "prompting", "pruning", "quantization", "rounds",
        "runs", "sparsifiers", "splits", "store", "tickets", "training",
    },
    "measurements": {
        "calibration", "data", "errors", "finetuning", "metrics", "models", "networks", "predictions", "probing",
        "prompting", "recalibration", "runs", "scores", "splits", "store", "training", "transfer",
    },
    "toy": {"checkpoints", "data", "fake_sets", "files", "models", "profiles", "pruning", "runs", "store"},
    "jobs": {"networks", "runs", "store"},
    "workers": {"errors", "jobs", "measurements", "networks", "runs", "store"},
    "study": {"data", "errors", "files", "jobs", "models", "networks", "runs", "store", "workers"},
    # speed
    "naive": {"mapping", "models", "optimisation"},
    "timing": {"files", "models", "store"},
    "floor": {"frozen", "models", "timing"},
    "bench_transfer": {"floor", "frozen", "models", "naive", "probing", "timing", "training", "transfer"},
    "bench_parts": {"data", "metrics", "models", "naive", "predictions", "pruning", "timing", "training"},
    "bench_ideas": {"bench_transfer", "floor", "frozen", "models", "pruning", "tickets", "timing", "training"},
    "bench_processes": {
        "bench_parts", "bench_transfer", "data", "errors", "frozen", "runs", "store", "study", "timing", "workers",
    },
    "bench": {"bench_ideas", "bench_parts", "bench_processes", "bench_transfer", "timing"},
    # what is shown
    "claims": {"errors"},
    "plots": {"claims"},
    "tracking": {"errors", "store"},
    "tools": {"bench", "data", "errors", "hub", "models", "study", "timing"},
    "cli": {
        "batch", "errors", "jobs", "metrics", "predictions", "profiles", "runs", "scores", "store", "study", "tools", "toy",
        "tracking", "workers",
    },
    "notebooks": {"errors", "plots", "files", "jobs", "profiles", "runs", "store", "study", "toy"},
    "batch": {"errors", "files", "notebooks", "profiles", "runs", "store", "study"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vpcore":
            names |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    assert path.stem in ALLOWED, f"add {path.stem} to the table"
    assert imported(path) <= ALLOWED[path.stem]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_modules_begin_with_their_lesson(path: Path) -> None:
    assert path.stem == "__main__" or ast.get_docstring(ast.parse(path.read_text()))


def test_core_needs_no_extra() -> None:
    """`vpcore run` works on a machine that has neither the book's packages nor a tracker.

    Nor does the command line wait for torchvision, whose import takes a second or two, before a network needs it.
    """
    absent = ("matplotlib", "seaborn", "sklearn", "papermill", "nbformat", "wandb", "sphinx", "timm", "huggingface_hub")
    code = f"import sys, vpcore.cli, vpcore.study; print([m for m in {(*absent, 'torchvision')} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
