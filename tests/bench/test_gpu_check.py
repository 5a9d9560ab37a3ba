"""The checks of a GPU: on one where there is one; their rehearsal on the CPU, and what they say, everywhere."""

import math
import subprocess
import sys

import pytest
import torch

from vpcore.bench import gpu_check
from vpcore.bench.gpu_check import CHECKS, Check, main


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("group", [name for name in CHECKS if name != "speed"])
def test_a_gpu_computes_what_the_cpu_computes(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        monkeypatch.setattr(backend, "allow_tf32", False)
    failed = [str(check) for check in CHECKS[group](torch.device("cuda")) if not check.passed]
    assert failed == []


@pytest.mark.parametrize("group", ["networks", "mappings", "probes", "waiting", "memory"])
def test_a_rehearsal_on_the_cpu_passes(group: str, cpu: torch.device) -> None:
    checks = list(CHECKS[group](cpu))
    assert all(check.passed for check in checks)
    assert bool(checks) == (group not in ("waiting", "memory"))  # which a CPU does not do


def test_a_difference_too_large_and_one_that_is_no_number_fail() -> None:
    assert str(Check("logits", 0.5, 1.0)) == "PASS  logits: 0.5  (at most 1)"
    assert str(Check("logits", 2.0, 1.0)) == "FAIL  logits: 2  (at most 1)"
    assert str(Check("logits", math.nan, 1.0)) == "FAIL  logits: nan  (at most 1)"
    assert str(Check("ms", 7.0)) == "NOTE  ms: 7"


def test_the_command_says_what_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def broken(device: torch.device) -> list[Check]:
        raise RuntimeError("no such kernel")

    for name in CHECKS:
        monkeypatch.setitem(CHECKS, name, lambda device: iter([Check("same", 0.0, 0.0)]))
    assert main(["--device", "cpu"]) == 0
    monkeypatch.setitem(CHECKS, "networks", broken)
    monkeypatch.setitem(CHECKS, "memory", lambda device: iter([Check("other", 1.0, 0.0)]))
    assert main(["--device", "cpu"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  networks: RuntimeError: no such kernel\n" in told
    assert "FAIL  other: 1  (at most 0)\n" in told
    assert told.endswith("2 failed\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    assert "--device cpu rehearses" in capsys.readouterr().out


def test_it_needs_torch_and_the_package_alone() -> None:
    """As on a machine that has nothing else."""
    absent = ("scipy", "pandas", "pyarrow", "PIL", "safetensors", "tqdm", "click", "torchvision", "sklearn", "pytest")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))  # None: importing it fails
from vpcore.bench.gpu_check import main
sys.exit(main(["--device", "cpu", "--only", "networks", "--only", "probes", "--only", "mappings"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all passed\n")


def test_steps_are_recorded_again_after_an_eager_comparison() -> None:
    before = gpu_check.repeating.WARM_UP
    with gpu_check._eager():
        assert before < gpu_check.repeating.WARM_UP
    assert before == gpu_check.repeating.WARM_UP
