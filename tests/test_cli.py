import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from vpcore.cli import COMMANDS, main
from vpcore.commands import options, studies
from vpcore.study.execution import torch
from vpcore.study.run import FACTS
from vpcore.study.tables import write_table

CARD = """
title = "Own"
[run]
source_per_class = 4
source_epochs = 2
source_batch = 64
epochs = 2
test_per_class = 4
[[grid]]
method = ["vp", "lp"]
task = ["shapes"]
budget = [1]
round = [0, 1]
"""


@pytest.fixture
def own(tmp_path: Path, results: Path) -> str:
    path = tmp_path / "own.toml"
    path.write_text(CARD)
    return str(path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_run_status_publish(own: str, tmp_path: Path) -> None:
    where = ("--profile", own, "--results", tmp_path / "results")
    first = call("run", *where)
    assert first.exit_code == 0
    assert "Own: 6 runs, 6 jobs to do, on cpu" in first.output
    assert "[6/6] vp shapes 1-shot, round 1, 1 seed: accuracy" in first.output
    assert "0:00 left" in first.output
    assert "own: 6 jobs done, 0 failed" in first.output
    assert "0 jobs to do" in call("run", *where).output
    told = call("status", *where).output
    assert "source       2 of 2 runs done" in told
    assert "0 jobs to do, 0 runs failed" in told
    assert "own.parquet" in call("publish", *where).output
    assert (tmp_path / "results" / "own.parquet").exists()


def test_a_slice_of_a_study(own: str, tmp_path: Path) -> None:
    where = ("--profile", own, "--results", tmp_path / "results")
    told = call("run", *where, "--minutes", "1e-9")
    assert told.exit_code == 0
    assert "own: 0 jobs done, 0 failed" in told.output
    assert "6 jobs are left; the same command goes on with them" in told.output
    assert "left;" not in call("run", *where, "--minutes", "10").output


def ended_by(number: int) -> Result:
    """A command that gets a signal while it works."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpcore.commands.options.load_profile", lambda name, toy: os.kill(os.getpid(), number))
        before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        try:
            return call("run")
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def test_interrupted_and_terminated() -> None:
    result = ended_by(signal.SIGINT)
    assert result.exit_code == 130
    assert result.output == "vpcore: interrupted; what is finished is kept, the same command goes on from there\n"
    assert ended_by(signal.SIGTERM).exit_code == 143


def test_only(own: str, tmp_path: Path) -> None:
    told = call("run", "--profile", own, "--results", tmp_path / "results", "--only", "source", "--quiet")
    assert told.output.startswith("own: 2 jobs done")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--profile", "minni"), "unknown profile 'minni'; did you mean 'mini'"),
        (("run", "--device", "gpu"), "unknown device 'gpu'"),
        (("run", "--only", "pl"), "unknown method 'pl'"),
        (("run", "--profile", "small", "--data", "/nowhere"), "there is no folder /nowhere"),
        (("run", "--profile", "small"), "'cifar10' is not built in"),
        (
            ("status", "--profile", "x.toml"),
            "`--profile` must be a TOML file, and there is none at /x.toml; or use a name, such as mini",
        ),
        (("publish", "--results", "/nowhere"), "no records of mini in /nowhere to publish"),
        (("book", "--profile", "minni"), "unknown profile 'minni'"),
    ],
)
def test_bad_input_has_exit_code_2_and_no_traceback(arguments: tuple[str, ...], message: str, monkeypatch) -> None:
    monkeypatch.delenv("VPCORE_DATA", raising=False)
    monkeypatch.chdir("/")
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.startswith("vpcore: ")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "--profile", 300 * "x"), "`--profile` must be a path that a file can have"),
        (("status", "--results", "a\0b"), "`--results` must be a path that a file can have"),
        (("status", "--results", "own.toml"), "'--results': Directory 'own.toml' is a file"),
        (("run", "--profile", "own.toml", "--data", 300 * "x"), "`--data` must be a path that a file can have"),
        (("run", "--profile", "own.toml", "--workers", 10**9), "`--workers` must be a whole number .* at most 1000"),
        (("replay", "--results", Path(__file__).parents[1] / "results/reference", "--seed", -1), "`--seed` must be"),
        (("measure", "method=lp", "task=shapes", f"seed={2**70}"), "`seed` in .* must be at most 4294967295"),
        (("prune", "squeezenet1_1", "--classes", -1, "--density", 1, "--output", "t.safetensors"), "`--classes` must be"),
        (("prune", "quits:now", "--density", 1, "--output", "t.safetensors"), "it fails: SystemExit: 3"),
    ],
)
def test_odd_arguments_have_exit_code_2(
    arguments: tuple[object, ...], message: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quits.py").write_text("def now():\n    raise SystemExit(3)\n")
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in str(path))
    result = call(*arguments)
    assert result.exit_code == 2
    assert re.search(message, result.output)
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)) == before


def test_status_survives_odd_files(own: str, tmp_path: Path) -> None:
    records, failed = (tmp_path / "results/own" / name for name in ("records", "failed"))
    (failed / "folder.txt").mkdir(parents=True)
    (failed / "loop.txt").symlink_to("loop.txt")
    (failed / "binary.txt").write_bytes(b"\xff\xfe\n")
    (failed / "empty.txt").touch()
    where = ("status", "--profile", own, "--results", tmp_path / "results")
    result = call(*where)
    assert result.exit_code == 0
    assert "4 runs failed" in result.output
    assert "folder.txt: (cannot be read: Is a directory)" in result.output
    assert "empty.txt: (empty)" in result.output
    records.mkdir()
    for make in (Path.mkdir, lambda path: path.symlink_to(path)):
        make(records / "odd.json")
        with pytest.warns(UserWarning, match=r"the record .* is damaged"):
            result = call(*where)
        assert result.exit_code == 2
        assert "odd.json is damaged" in result.output
        (records / "odd.json").rename(tmp_path / f"odd-{len(list(tmp_path.iterdir()))}")
    write_table(tmp_path / "results/own.parquet", pd.DataFrame({"a": [1]}))
    result = call(*where)
    assert result.exit_code == 2
    assert "must have the column id" in result.output


def test_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = call("run", "--device", "cuda")
    assert result.exit_code == 2
    assert "`--device` cuda needs a GPU" in result.output


def test_a_loss_that_is_no_number_is_bad_input_and_a_bug_is_ours(own: str, tmp_path: Path, monkeypatch) -> None:
    Path(own).write_text(CARD.replace("epochs = 2\ntest", "epochs = 2\nsource_lr = 1e20\ntest"))
    where = ("--profile", own, "--results", tmp_path / "results")
    result = call("run", *where)
    assert result.exit_code == 2
    assert "FAILED ticket of round 0" in result.output
    assert "use a lower learning rate" in result.output
    assert "6 failed" in result.output
    assert "source-glyphs-round0" in call("status", *where).output

    from vpcore.study import adaptation

    Path(own).write_text(CARD)
    monkeypatch.setattr(adaptation, "visual_prompt", lambda *a, **k: 1 / 0)
    result = call("run", *where)
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero (traceback in the folder failed)" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(own: str, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o555)
    result = call("run", "--profile", own, "--results", tmp_path / "ro")
    assert result.exit_code == 2
    assert "cannot write" in result.output


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vpcore", "run", "--profile", "nope"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vpcore: unknown profile 'nope'")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there_for_every_command(name: str) -> None:
    text = call(name, "--help").output
    assert text.startswith(f"Usage: main {name} ")
    assert COMMANDS[name][1].rstrip(".") in text
    assert f"vpcore {name} " in text or "--profile" in text  # an example, or what all commands of a study share
    assert f"  {name} " in call("--help").output


def test_an_unknown_command_is_bad_input() -> None:
    assert call("rnu").exit_code == 2
    assert "No such command 'rnu'" in call("rnu").output


def test_help_waits_for_nothing_heavy() -> None:
    """`vpcore --help` loads neither torch nor numpy, which take seconds."""
    code = """
import sys
from click.testing import CliRunner
from vpcore.cli import main
result = CliRunner().invoke(main, ["--help"])
print(result.exit_code, [name for name in ("torch", "numpy", "scipy", "pandas", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_one_run_of_ones_own(own: str, tmp_path: Path) -> None:
    where = ("--profile", own, "--results", tmp_path / "results")
    told = call(
        "measure", *where, "method=vp", "task=shapes", "budget=1", "mapping=blm", "weight_bits=4", "activation_bits=4"
    )
    assert told.exit_code == 0
    assert "vp blm shapes 1-shot, round 0 at 4/4 bits, 1 seed: accuracy" in told.output
    assert "since none is given" not in told.output
    assert "note: " not in told.output
    path = Path(told.output.split("record in ")[1].strip())
    (record,) = json.loads(path.read_text())["records"]
    assert (record["mapping"], record["weight_bits"], record["epochs"]) == ("blm", 4, 2)
    low, high = map(
        float, re.search(rf"accuracy       {record['accuracy']:.4f}  \((.*) to (.*)\)  accuracy\n", told.output).groups()
    )
    assert low < record["accuracy"] < high
    refused = call("measure", *where, "round=99", "task=shapes", "method=lp")
    assert refused.exit_code == 2
    assert (
        "`round` must be at most 17 for resnet8, so that one of its 76,288 weights is kept at `rate` 0.5; got 99"
        in refused.output
    )
    refused = call("measure", *where, "taks=shapes")
    assert refused.exit_code == 2
    assert "unknown field in the setting taks=shapes: 'taks'; did you mean 'task'" in refused.output


def test_a_run_says_what_it_is_and_what_it_leaves_out(own: str, tmp_path: Path) -> None:
    where = ("--profile", own, "--results", tmp_path / "results")
    told = call("measure", *where, "task=shapes", "budget=1", "precision=float32").output
    assert told.startswith("method=source, since none is given: what is measured: the source task, visual prompting (vp)")
    assert "note: task, budget left out: no effect on method=source with the other fields as they are\n" in told
    assert "[1/1] ticket of round 0" in told
    assert "recorded before" not in told
    again = call("measure", *where, "sparsifier=rigl").output
    assert "note: sparsifier left out" in again  # of the dense network
    assert "[1/1]" not in again
    assert "recorded before, nothing is computed" in again
    assert told.splitlines()[-9:] == again.splitlines()[-9:]
    few = call("measure", *where, "method=lp", "task=digits", "budget=1000", "epochs=1").output
    assert "note: some classes have fewer than 1000 images" in few
    shown = call("measure", "--help").output
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in FACTS)
    assert re.search(r"pad, frame, watermark", shown)


def test_records_are_looked_for_where_they_are(own: str, tmp_path: Path) -> None:
    """Of a published study that was not computed here, in the table."""
    where = ("--profile", own, "--results", tmp_path / "results")
    records = tmp_path / "results/own/records"
    assert f"records in {records}\n" in call("run", *where, "--quiet", "--only", "source").output
    call("publish", *where)
    for path in records.glob("*.json"):
        path.unlink()
    table = tmp_path / "results/own.parquet"
    assert f"records in {table}\n" in call("run", *where, "--only", "source").output
    assert f"results in {table}\n" in call("status", *where).output
    assert f"record in {table}\n" in call("measure", *where).output


def test_emulated_bf16_is_said_before_it_is_computed(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "emulated", lambda precision, device: precision == "bf16" and device.type == "cpu")
    for precision in ("float32", "bf16"):
        Path(own).write_text(CARD.replace("[run]\n", f'[run]\nprecision = "{precision}"\n'))
        with monkeypatch.context() as stopped:
            stopped.setattr(studies, "execute", lambda *a, **k: iter(()))
            told = call("run", "--profile", own, "--results", tmp_path / "results").output
        assert ("note: this processor has no instructions for bf16" in told) == (precision == "bf16")


def test_only_some_grids(tmp_path: Path, results: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(CARD + 'name = "a"\n[[grid]]\nname = "b"\nmethod = ["lp"]\ntask = ["textures"]\nbudget = [1]\n')
    told = call("run", "--profile", path, "--results", results, "--grid", "b")
    assert "lp textures 1-shot, round 0, 1 seed: accuracy" in told.output
    assert "shapes" not in told.output
    assert "unknown grid of the profile own: 'c'; There are: a, b" in call("run", "--profile", path, "--grid", "c").output


def test_only_some_tasks(tmp_path: Path, results: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(CARD.replace('["shapes"]', '["shapes", "textures"]').replace('"vp", ', ""))
    where = ("--profile", path, "--results", results)
    told = call("run", *where, "--task", "textures")
    assert "own: 4 jobs done, 0 failed" in told.output  # two tickets, and a transfer on each
    assert told.output.count("lp textures 1-shot") == 2
    assert "shapes" not in told.output
    assert "unknown task of the profile own: 'shape'; did you mean 'shapes'" in call("run", *where, "--task", "shape").output


def test_fetch_names_the_way_to_a_set(tmp_path: Path) -> None:
    for arguments, message in (
        (("nothing",), "unknown image set to fetch 'nothing'"),
        (("coop-ucf101",), "split_zhou_UCF101.json"),
        (("eurosat",), "revision"),
        (("mine", "--image", "img"), "unknown set on the hub 'mine'"),
    ):
        refused = call("fetch", *arguments, "--data", tmp_path)
        assert refused.exit_code == 2
        assert message in refused.output
    assert not list(tmp_path.iterdir())
    missing = CliRunner().invoke(main, ["fetch", "tv-cifar10"], env={"VPCORE_DATA": ""})
    assert missing.exit_code == 2
    assert "`--data` must name the folder" in missing.output
