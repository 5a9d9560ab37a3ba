"""What `paper` takes, against a count by hand; the published table against the measurements that it is made from."""

import io

import pandas as pd
import pytest
import torch
from torch import nn

from vpcore.networks.backbones import build
from vpcore.report.paper_hours import CLASSES, ROOT, Speed, measured, operations, paper_hours, seconds, shown
from vpcore.study.profile import load_profile
from vpcore.study.run import Run


def test_images_and_seconds_by_hand() -> None:
    run = Run(method="vp", task="tv-flowers102", budget=4, model="resnet50", canvas=224, image_px=128, epochs=5)
    assert shown(run) == 408
    assert shown(Run(method="vp", task="tv-flowers102", budget=100)) == 1_020  # all there are
    assert shown(Run(method="vp", task="tv-eurosat", budget=None)) == 24_300
    speed = Speed({128: 0.02}, 0.01, operations("resnet50", 224))
    assert seconds(run, speed) == pytest.approx(5 * 408 * 0.03)


def test_operations_are_those_of_the_layers() -> None:
    """Two for each multiplication of a convolution or of the classifier."""
    model, counted = build("resnet18", classes=1000, seed=0).eval(), []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(
                lambda layer, inputs, output: counted.append(2 * output.numel() * layer.weight[0].numel())
            )
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert operations("resnet18", 64) == sum(counted)


@pytest.mark.slow
def test_the_published_table_is_that_of_the_measurements() -> None:
    written = paper_hours().to_csv(index=False)
    assert written == (ROOT / "book" / "paper_hours.csv").read_text(), "see vpcore/report/planning.py"
    table = pd.read_csv(io.StringIO(written)).set_index("machine")
    prompts = [run for run in load_profile("paper").runs if run.method == "vp"]
    assert {run.task for run in prompts} == set(CLASSES)
    work = sum(seconds(run, measured()[0]) for run in prompts) / 3600
    assert table.loc["a laptop with two cores", "hours of work"] == pytest.approx(work, abs=1)
    assert (table["days until the end"] * 24 >= table["longest job, hours"] - 2).all()
