"""`vpcore calibrate`: the same numbers from every kind of file, and errors that name the file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from vpcore.calibration.all_metrics import METRICS, metrics
from vpcore.cli import main
from vpcore.commands.own_logits import read_predictions

TRUE = 2.5  # the temperature at which the labels are drawn


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def drawn(seed: int, *, size: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((logits / TRUE).softmax(1), 1, generator=generator)[:, 0]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, tuple[Path, ...]]:
    """The same predictions as files of every kind."""
    logits, labels = drawn(0)
    arrays = {"logits": logits, "labels": labels}
    np.savez(tmp_path / "both.npz", **{name: value.numpy() for name, value in arrays.items()})
    save_file(arrays, tmp_path / "both.safetensors")
    torch.save(arrays, tmp_path / "both.pt")
    table = pd.DataFrame(logits.numpy())
    table.to_csv(tmp_path / "logits.csv", index=False, header=False)
    table.rename(columns=lambda t: f"class {t}").assign(label=labels.numpy()).to_csv(tmp_path / "both.csv", index=False)
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value.numpy())
        torch.save(value, tmp_path / f"{name}.pth")
    pd.DataFrame({"label": labels.numpy()}).to_csv(tmp_path / "labels.csv", index=False)
    pairs = (("both.npz",), ("both.safetensors",), ("both.pt",), ("both.csv",))
    pairs += ("logits.npy", "labels.npy"), ("logits.pth", "labels.pth"), ("logits.csv", "labels.csv")
    pairs += (("both.npz", "labels.npy"),)
    return {" ".join(pair): tuple(tmp_path / name for name in pair) for pair in pairs}


def test_every_kind_of_file_holds_the_same(files: dict[str, tuple[Path, ...]]) -> None:
    logits, labels = drawn(0)
    for paths in files.values():
        found = read_predictions(*paths)
        assert torch.allclose(found[0], logits, atol=1e-12)
        assert torch.equal(found[1].long(), labels)


def test_all_metrics_and_the_temperature(files: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    logits, labels = drawn(0)
    told = call("calibrate", *files["logits.npy labels.npy"], "--output", tmp_path / "out.json")
    assert told.exit_code == 0
    assert "400 predictions of 5 classes" in told.output
    for name, metric in METRICS.items():
        assert f"  {name:18}{metrics(logits, labels)[name]:20.4f}  {metric.label}" in told.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["as they are"]["ece"] == metrics(logits, labels)["ece"]
    assert written["temperature"] == pytest.approx(TRUE, rel=0.15)
    assert "of these very predictions" in told.output


def test_recalibration_is_fitted_on_the_data_that_are_named(files: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    logits, labels = drawn(1, size=5000)
    np.savez(tmp_path / "val.npz", logits=logits.numpy(), labels=labels.numpy())
    told = call("calibrate", *files["both.npz"], "--fit", tmp_path / "val.npz", "--output", tmp_path / "out.json")
    assert told.exit_code == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["temperature"] == pytest.approx(TRUE, rel=0.05)
    assert written["after temperature"]["accuracy"] == written["as they are"]["accuracy"]
    assert written["after temperature"]["nll"] == pytest.approx(metrics(drawn(0)[0] / TRUE, drawn(0)[1])["nll"], rel=0.01)
    assert written["after temperature"]["ece"] < written["as they are"]["ece"] / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("logits.npy",), "logits.npy must hold `logits` and `labels`, but it holds logits"),
        (("nothing.npz",), "there is no file"),
        (("labels.txt",), "unknown kind of file, of labels.txt: '.txt'"),
        (("broken.npz",), "broken.npz must hold arrays of numbers; it is damaged or something else"),
        (("text.csv", "labels.npy"), "text.csv must hold arrays of numbers"),
        (("logits.npy", "two.npz"), "two.npz must hold `labels`, or one array; it holds a, b"),
        (("logits.npy", "many.npy"), "`labels` must"),
        (("probs.npy", "labels.npy"), "probabilities? use from_probs"),
        (
            ("logits.npy", "labels.npy", "--fit-labels", "labels.npy"),
            "`--fit-labels` needs validation data to recalibrate with; name the file of their logits with --fit",
        ),
        (("both.npz", "--fit", "both.npz", "--method", "temp"), "unknown recalibration 'temp'"),
        (("both.npz", "--method", "isotonic"), "`--method` needs validation data to recalibrate with"),
        (("both.npz", "--output", "."), "`--output` must be the name of a file that ends in .json, got the folder ."),
        (("cut.npy", "labels.npy"), "; write it again: np.save(FILE, array), an array of numbers"),
        (("cut.pt",), '; write it again: torch.save({"logits": ..., "labels": ...}, FILE)'),
    ],
)
def test_bad_files_are_named(files: object, tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.npz").write_bytes(b"PK rubbish")
    Path("text.csv").write_text("a,b\nx,y\n")
    for name, whole in (("cut.npy", "logits.npy"), ("cut.pt", "both.pt")):
        Path(name).write_bytes(Path(whole).read_bytes()[:-700])
    np.savez("two.npz", a=np.zeros(400), b=np.zeros(400))
    np.save("many.npy", np.zeros(401, dtype=int))
    np.save("probs.npy", drawn(0)[0].softmax(1).numpy())
    refused = call("calibrate", *arguments)
    assert refused.exit_code == 2
    assert refused.output.startswith("vpcore: ")
    assert message in refused.output
