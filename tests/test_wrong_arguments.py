"""A public function that is called wrongly names the argument and says what to do, instead of failing within torch."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.wrong_calls import bad_calls
from vpcore import Frozen, Images, InputError, Recipe, fine_tune, fit, linear_probe, optimal_probe, prunable, visual_prompt
from vpcore.networks.backbones import build, check_canvas, normalise
from vpcore.networks.folding import fold_batch_norm_
from vpcore.networks.similarity import linear_cka
from vpcore.networks.training import predict
from vpcore.probing.linear_probing import probe_features
from vpcore.prompting.prompts import build as build_prompt

COUNT, TARGETS, PX, CANVAS = 12, 3, 8, 16
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(COUNT) % TARGETS
TRAIN = Images(torch.randint(256, (COUNT, 3, PX, PX), generator=GENERATOR).to(torch.uint8), LABELS, ("a", "b", "c"))
FEATURES = torch.randn(COUNT, 5, generator=GENERATOR)
MODEL = build("resnet8", classes=TARGETS, seed=0).eval()
NETWORK = Frozen(MODEL)
RECIPE = {"epochs": 1, "batch": 4, "lr": 0.1, "weight_decay": 0.0, "augment": "none", "precision": "float32", "seed": 0}
LEARNING = {"epochs": 1, "batch": 4, "lr": 0.01, "seeds": (0,), "index": torch.arange(COUNT)[None]}
PROBED = {"features": FEATURES, "labels": LABELS, "index": LEARNING["index"], "targets": TARGETS}
PROMPTED = visual_prompt(NETWORK, TRAIN, canvas=CANVAS, epochs=1)
PROBES = linear_probe(NETWORK, TRAIN, epochs=1)
TUNED = fine_tune(MODEL, TRAIN, epochs=1)

# name -> a public function, and arguments that it takes
CALLS: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
    "build": (build, {"name": "resnet8", "classes": 3, "seed": 0}),
    "prunable": (prunable, {"model": MODEL, "part": "body"}),
    "normalise": (normalise, {"images": torch.rand(1, 3, PX, PX)}),
    "check_canvas": (check_canvas, {"name": "deit-tiny", "canvas": 224}),
    "fold_batch_norm_": (fold_batch_norm_, {"model": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()}),
    "Frozen": (Frozen, {"model": MODEL, "precision": "float32", "device": "cpu", "statistics": None, "head": None}),
    "Frozen()": (NETWORK, {"images": torch.rand(1, 3, PX, PX)}),
    "Frozen.features": (NETWORK.features, {"images": torch.rand(1, 3, PX, PX)}),
    "Recipe": (Recipe, {**RECIPE, "label_smoothing": 0.1, "mixup": 0.2}),
    "fit": (
        lambda model, **rest: fit(build("resnet8", classes=3, seed=0) if model is MODEL else model, **rest),
        {"model": MODEL, "images": TRAIN.images, "labels": LABELS, "recipe": Recipe(**RECIPE), "first_epoch": 0,
         "statistics": None, "take_step": lambda optimizer, step: optimizer.step(), "optimizer_state": None},
    ),
    "predict": (predict, {"forward": NETWORK, "images": TRAIN.images, "batch": 4, "device": "cpu"}),
    "linear_cka": (linear_cka, {"x": FEATURES, "y": FEATURES}),
    "prompts.build": (build_prompt, {"name": "pad", "canvas": CANVAS, "image_px": PX, "seeds": [0]}),
    "visual_prompt": (
        visual_prompt,
        {"network": NETWORK, "train": TRAIN, "select": TRAIN, **LEARNING, "canvas": CANVAS, "image_px": PX, "prompt": "pad",
         "mapping": "ilm", "ties": "random", "last_mapping": "fresh"},
    ),
    "Prompted": (PROMPTED, {"images": TRAIN.images}),
    "linear_probe": (linear_probe, {"network": NETWORK, "train": TRAIN, "select": TRAIN, **LEARNING, "view": lambda x: x}),
    "Probed": (PROBES, {"images": TRAIN.images}),
    "Classifiers": (PROBES.classifiers, {"features": torch.rand(2, 64)}),
    "probe_features": (probe_features, {**PROBED, **LEARNING, "select": (FEATURES, LABELS)}),
    "optimal_probe": (optimal_probe, {**PROBED, "val": (FEATURES, LABELS), "path": (0.1,)}),
    "fine_tune": (
        fine_tune,
        {"model": MODEL, "train": TRAIN, **LEARNING, "masks": None, "precision": "float32", "device": "cpu", "head": None,
         "statistics": None},
    ),
    "FineTuned": (TUNED, {"images": TRAIN.images}),
}  # fmt: skip

NUMBERS = (-1, math.nan, "1", None, True)
NAMES = ("nonsense", 3, None, ["pad"])
WRONG_IMAGES = (None, TRAIN.images[0], TRAIN.images[:, :1], TRAIN.images.numpy(), TRAIN.images.permute(0, 2, 3, 1))
WRONG_LABELS = (
    None, LABELS.float(), nn.functional.one_hot(LABELS), LABELS - 1, LABELS[:0], LABELS + 1,
)  # fmt: skip
WRONG_SETS = (
    None, (TRAIN.images, LABELS), TRAIN.images,
    *(dataclasses.replace(TRAIN, images=images) for images in (*WRONG_IMAGES, TRAIN.images / 255, TRAIN.images[:5])),
    *(dataclasses.replace(TRAIN, labels=labels) for labels in WRONG_LABELS),
    *(dataclasses.replace(TRAIN, classes=classes) for classes in ((), 3, "abc", ("a", "b"))),
)  # fmt: skip
WRONG_FEATURES = (None, FEATURES.numpy(), FEATURES[0], FEATURES.long(), FEATURES * math.nan)
WRONG_PAIRS = (
    FEATURES, None, (FEATURES[:0], LABELS[:0]),
    (FEATURES[:4], LABELS), (FEATURES * math.inf, LABELS), (FEATURES[:, :2], LABELS), (FEATURES, LABELS + 1),
)  # fmt: skip
WRONG_STATISTICS = ("imagenet", (0.5, 0.5), ((0.5,) * 3, (0.0,) * 3), ((math.nan,) * 3, (1.0,) * 3))

# name of an argument -> what it must not be, whatever the function
WRONG: dict[str, tuple[object, ...]] = {
    "seeds": (0, (), "ab", (0.5,), ("0",), None, (-1,), (2**64,)),
    "seed": (-1, 0.5, "0", None, 2**64),
    "epochs": (-1, 2.5, "1", None, True),
    "first_epoch": (-1, 0.5, RECIPE["epochs"] + 1),
    "take_step": (None, "step"),
    "view": (None, "frame"),
    "optimizer_state": ("state.pt", {"epoch": 1}, torch.optim.SGD([LABELS.float()], lr=1).state_dict()),
    "batch": (0, -1, 2.5, "8", True),
    "classes": (0, -1, 2.5, "8", None, 10**12),
    "targets": (0, -1, 2.5, None, 10**9),
    "lr": (0, math.inf, 1e300, *NUMBERS),
    "weight_decay": (math.inf, *NUMBERS),
    "label_smoothing": (1.0, *NUMBERS),
    "mixup": (math.inf, *NUMBERS),
    "canvas": (0, -1, 16.5, "16", None, 100_000),
    "image_px": (0, -1, CANVAS, 99, 8.5, "8"),
    "index": (
        LEARNING["index"][0], LEARNING["index"].float(), LEARNING["index"] + 1, LEARNING["index"] - 1, [0, 1],
        torch.zeros(1, 0).long(), np.zeros((1, 2)), [[0, 1], [2]],
    ),
    "network": (MODEL, None, MODEL.state_dict()),
    "model": (None, "resnet8", MODEL.state_dict(), nn.Sequential(nn.LazyConv2d(3, 1), nn.Linear(3, 3))),
    "train": WRONG_SETS,
    "select": (*WRONG_SETS[1:], dataclasses.replace(TRAIN, classes=("c", "b", "a"))),
    "val": WRONG_PAIRS,
    "features": WRONG_FEATURES,
    "x": WRONG_FEATURES,
    "y": WRONG_FEATURES,
    "labels": WRONG_LABELS,
    "path": ((), (0.1, -1), (math.nan,), 0.1),
    "name": NAMES,
    "part": NAMES,
    "precision": NAMES,
    "augment": NAMES,
    "prompt": NAMES,
    "mapping": NAMES,
    "ties": NAMES,
    "last_mapping": NAMES,
    "head": ("nonsense", 3),
    "device": ("nonsense", 2.5, "meta"),
    "masks": ({"nonsense": LABELS > 0}, {"fc.weight": LABELS}, {"fc.weight": LABELS > 0}),
    "statistics": WRONG_STATISTICS,
    "recipe": (None, RECIPE),
    "images": WRONG_IMAGES[:4],
}  # fmt: skip
# the same for an argument of one function
WRONG_HERE: dict[tuple[str, str], tuple[object, ...]] = {
    ("normalise", "images"): (TRAIN.images,),
    ("check_canvas", "canvas"): (128, None),
    ("fit", "labels"): WRONG_LABELS[:4],
    ("fit", "images"): (*WRONG_IMAGES[:4], TRAIN.images[..., :0, :0], TRAIN.images.to_sparse()),
    ("Frozen()", "images"): (None, TRAIN.images, torch.rand(3, PX, PX), torch.rand(1, 1, PX, PX), np.zeros((1, 3, PX, PX))),
    ("Prompted", "images"): (*WRONG_IMAGES, TRAIN.images / 255, TRAIN.images[..., :6], TRAIN.images.repeat(1, 1, 2, 2)),
    ("Classifiers", "features"): (None, torch.rand(2, 63), torch.rand(64), torch.rand(2, 64).numpy()),
    ("probe_features", "select"): WRONG_PAIRS[:1] + WRONG_PAIRS[2:],
}
WRONG_HERE["Frozen.features", "images"] = WRONG_HERE["Frozen()", "images"]


@pytest.mark.parametrize("call", CALLS)
def test_the_arguments_are_right_but_for_the_one_that_is_wrong(call: str) -> None:
    function, arguments = CALLS[call]
    function(**arguments)
    assert [name for name in arguments if not WRONG_HERE.get((call, name), WRONG.get(name)) and name != "forward"] == []


@pytest.mark.parametrize(("call", "name", "value"), bad_calls(CALLS, WRONG, WRONG_HERE))
def test_a_wrong_argument_is_named(call: str, name: str, value: object) -> None:
    function, arguments = CALLS[call]
    known_as = {"name": "(model|prompt)", "head": "linear layer or convolution, `head`"}.get(name, name)
    with pytest.raises(InputError, match=rf"^(`{name}[`.]|unknown {known_as} )") as caught:
        function(**{**arguments, name: value})
    assert re.search(" must |There are: ", str(caught.value))  # what is expected


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    """By a transformer, whose position embedding fits one size, and by convolutions without padding."""
    model = build("deit-tiny", classes=3, seed=0)
    transformer = Frozen(model)
    small = Frozen(nn.Sequential(nn.Conv2d(3, 4, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    for network, canvas in ((transformer, 32), (small, 16)):
        with pytest.raises(InputError, match=r"`train.images` must be of a size that the network takes, .* 8 x 8 px \("):
            linear_probe(network, TRAIN)
        if network is transformer:
            with pytest.raises(InputError, match=f"`canvas` must be of a size .* {canvas} x {canvas} px .*made for"):
                visual_prompt(network, TRAIN, canvas=canvas)
    with pytest.raises(InputError, match="`train.images` must be of a size that the network takes"):
        fine_tune(model, TRAIN)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
         "`images` must be .* fails on images of 8 x 8 px .* to have 1 channels, but got 3 .* in three colours"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 3)), "`images` must be of a size that the network takes"),
        (build("deit-tiny", classes=3, seed=0), "`images` must be of a size that the network takes"),
        (nn.Flatten(), "`model` must have weights that want gradients"),
        (NETWORK, "`model` must have weights that want gradients"),
        (nn.Linear(3, 3, device="meta"), "`model` must have weights, but weight is on the device meta"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_trained_on_these_images_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(model, TRAIN.images, LABELS, Recipe(**RECIPE))


def test_a_canvas_must_be_larger_than_the_image() -> None:
    for canvas in (PX, PX - 2):
        with pytest.raises(InputError, match=f"`image_px` must be .* below the canvas of {canvas} px, got 8; use a larger"):
            visual_prompt(NETWORK, TRAIN, canvas=canvas)


def test_labels_beyond_the_outputs_of_a_network_in_training_are_refused() -> None:
    with pytest.raises(InputError, match=r"`model` must return \(N, S\) logits, S at least 3 as there are labels up to 2"):
        fit(build("resnet8", classes=2, seed=0), TRAIN.images, LABELS, Recipe(**RECIPE))


@pytest.mark.parametrize("labels", [LABELS.int(), LABELS.tolist()], ids=type)
def test_labels_of_any_whole_type_are_the_same_labels(labels: object) -> None:
    others = dataclasses.replace(TRAIN, labels=labels)
    for adapt in (lambda train: visual_prompt(NETWORK, train, canvas=CANVAS, epochs=1),
                  lambda train: linear_probe(NETWORK, train, epochs=1),
                  lambda train: fine_tune(MODEL, train, epochs=1)):  # fmt: skip
        assert torch.equal(adapt(others)(TRAIN.images), adapt(TRAIN)(TRAIN.images))
