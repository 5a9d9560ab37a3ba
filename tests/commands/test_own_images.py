"""`vpcore pack` and `vpcore prompt`: from a folder of class folders to an image set, and to an accuracy."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from vpcore.calibration.all_metrics import metrics
from vpcore.cli import main
from vpcore.commands import options
from vpcore.commands.own_images import read_images
from vpcore.data.class_folders import image_folder
from vpcore.data.splits import shots
from vpcore.networks.backbones import IMAGENET
from vpcore.networks.frozen import Frozen
from vpcore.prompting.prompts import build
from vpcore.prompting.visual_prompting import visual_prompt

SMALL = ("--canvas", 32, "--px", 24, "--epochs", 3)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def own() -> nn.Module:
    """A network of one's own, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
        )


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Noise of another colour for each class, as PNG files of different sizes."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("test", 5)):
        for label, name in enumerate(("blue", "green", "red")):
            for number in range(count):
                tint = torch.tensor([0.0, 0.0, 0.0]).index_fill(0, torch.tensor(2 - label), 120)
                pixels: Tensor = (torch.rand(30 + number, 40, 3, generator=generator) * 130 + tint).byte()
                path = tmp_path / "photos" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(path)
    return Path("photos")


def test_a_folder_becomes_a_set_that_commands_take_by_name(photos: Path) -> None:
    told = call("pack", photos / "train", "--data", "sets", "--name", "tints", "--test-share", 0.25)
    assert told.output == "wrote sets/tints\n"
    card = json.loads(Path("sets/tints/dataset.json").read_text())
    assert card["classes"] == ["blue", "green", "red"]
    train, test = read_images("tints", px=24, data=Path("sets"))
    assert (len(test), test.classes) == (6, ("blue", "green", "red"))


def test_the_prompt_is_the_one_of_the_package(photos: Path) -> None:
    torch.save(own().state_dict(), "own.pth")
    Path("tint_network.py").write_text("from tests.commands.test_own_images import own as make\n")
    told = call(
        "prompt", "tint_network:make", photos, "--weights", "own.pth", *SMALL, "--budget", 2, "--output", "p.safetensors"
    )
    assert told.exit_code == 0, told.output
    train, test = (image_folder(photos / split, px=24) for split in ("train", "test"))
    index = shots(train.labels, 2, task="photos", seed=0)[None]
    learned = visual_prompt(Frozen(own(), statistics=IMAGENET), train, canvas=32, image_px=24, index=index, epochs=3)
    logits = learned(test.images)[0]
    for name in ("accuracy", "ece", "nll"):
        assert f"  {name:14} {metrics(logits, test.labels)[name]:.4f}  (" in told.output
    assert "learning from 6 images of 3 classes at 24 of 32 px, on cpu" in told.output
    assert "measured on 15 images" in told.output
    calibrated = call("calibrate", "p.safetensors")
    assert f"  ece               {metrics(logits, test.labels)['ece']:20.4f}" in calibrated.output
    with safe_open("p.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "red"]
        assert json.loads(file.metadata()["facts"])["canvas"] == 32
    assert torch.equal(saved.pop("logits"), logits)
    assert torch.equal(saved.pop("labels"), test.labels)
    assert torch.equal(saved.pop("mapping"), learned.mapping)
    again = build("pad", canvas=32, image_px=24, seeds=[0])
    again.load_state_dict(saved)
    images = test.images[None].float() / 255
    assert torch.equal(again.eval()(images), learned.prompt(images))


def test_a_set_is_named_as_well(photos: Path) -> None:
    Path("tint_network.py").write_text("from tests.commands.test_own_images import own as make\n")
    told = call("prompt", "tint_network:make", "shapes", *SMALL, "--budget", 1, "--prompt", "frame", "--mapping", "blm")
    assert told.exit_code == 0, told.output
    assert "learning from 10 images of 10 classes at 32 of 32 px" in told.output  # which fill the canvas


def test_what_a_stranger_would_not_see_is_said(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That classes are smaller than the budget, and that bf16 is emulated."""
    Path("tint_network.py").write_text("from tests.commands.test_own_images import own as make\n")
    arguments = ("prompt", "tint_network:make", "photos", *SMALL[:4], "--epochs", 1, "--precision", "bf16")
    for emulated, budget in ((True, 9), (False, 8)):
        monkeypatch.setattr(options, "emulated", lambda precision, device, answer=emulated: answer and precision == "bf16")
        told = call(*arguments, "--budget", budget).output
        assert ("note: this processor has no instructions for bf16" in told) == emulated
        assert ("note: some classes have fewer than 9 images" in told) == (budget == 9)
        assert "learning from 24 images" in told


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(photos: Path) -> None:
    Path("folder.safetensors").mkdir()
    Path("file").touch()
    for output in ("folder.safetensors", "prompt.bin", "prompt", "file/prompt.safetensors"):
        refused = call("prompt", "no_such_module:make", "nothing", "--output", output)
        assert refused.exit_code == 2
        assert refused.output.startswith("vpcore: `--output` must ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("prompt", "tint_network:make", "photos/train"),
            "photos/train must hold train and test with a folder for each class",
        ),
        (("prompt", "tint_network:make", "nothing"), "nothing"),
        (("prompt", "tint_network:make", "photos", "--budget", "0"), "`--budget` must be a whole number of images a class"),
        (("prompt", "tint_network:make", "photos", "--prompt", "pda"), "unknown prompt 'pda'; did you mean 'pad'"),
        (("prompt", "tint_network:make", "photos", "--mapping", "iml"), "unknown mapping 'iml'"),
        (("prompt", "tint_network:make", "photos", "--head", "6"), "`--head`"),
        (("prompt", "tint_network:make", "photos", "--device", "tpu"), "unknown device 'tpu'"),
        (("pack", "photos"), "`--data` must name the folder"),
        (("pack", "photo", "--data", "sets"), "photo"),
        (("pack", "photos/train/red", "--data", "sets"), "holds no folder"),
    ],
)
def test_what_is_wrong_is_named(photos: Path, monkeypatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.delenv("VPCORE_DATA", raising=False)
    Path("tint_network.py").write_text("from tests.commands.test_own_images import own as make\n")
    refused = call(*arguments, *(SMALL if arguments[0] == "prompt" else ()))
    assert refused.exit_code == 2
    assert refused.output.startswith("vpcore: ")
    assert message in refused.output
    assert not Path("sets").exists()
