"""What is plainly a number is taken as one, whatever holds it; what is not is refused with its name."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from vpcore import Frozen, Images, InputError, Recipe, linear_probe, metrics, prune, quantize, visual_prompt
from vpcore.checks import as_labels, as_tensor, number, share, whole_number
from vpcore.networks.backbones import IMAGENET, build, statistics_of
from vpcore.networks.inputs import as_index, as_seeds

THREES = (3, np.int8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8))
HALVES = (0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64))
RECIPE = {"epochs": 1, "batch": 4, "lr": 0.1, "weight_decay": 0.0, "augment": "none", "precision": "float32", "seed": 0}


@pytest.mark.parametrize("three", THREES, ids=repr)
def test_a_whole_number_is_one_whatever_holds_it(three: object) -> None:
    found = whole_number(three, name="n")
    assert (found, type(found)) == (3, int)
    assert number(three, name="x", use="1") == 3
    assert density_of(prune(build("resnet8", classes=2, seed=three), density=1.0)) == 1


def density_of(masks: dict[str, torch.Tensor]) -> float:
    return torch.cat([mask.flatten() for mask in masks.values()]).double().mean().item()


@pytest.mark.parametrize("half", HALVES, ids=repr)
def test_a_number_is_one_whatever_holds_it(half: object) -> None:
    for found in (number(half, name="x", use="1"), share(half, name="x")):
        assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), torch.tensor([3]), np.array([3]), "3", None], ids=repr
)
def test_what_is_no_number_is_refused(value: object) -> None:
    for call in (
        lambda: whole_number(value, name="n"),
        lambda: number(value, name="n", use="1"),
        lambda: share(value, name="n", one=True),
    ):
        with pytest.raises(InputError, match="`n` must be "):
            call()


def test_seeds_and_rows_may_be_given_as_tensors_arrays_or_lists() -> None:
    for seeds in (range(3), [0, 1, 2], torch.arange(3), np.arange(3), list(torch.arange(3)), np.arange(3, dtype=np.uint8)):
        assert as_seeds(seeds) == [0, 1, 2]
        assert all(type(seed) is int for seed in as_seeds(seeds))
    for seeds in (torch.arange(3.0), np.zeros((1, 2), dtype=int), torch.tensor(0), np.array([True])):
        with pytest.raises(InputError, match="`seeds` must hold"):
            as_seeds(seeds)
    rows = torch.tensor([[2, 0], [1, 1]])
    for index in (rows, rows.numpy(), rows.tolist(), rows.int(), rows.to(torch.uint8), rows.numpy().astype(np.int16)):
        assert torch.equal(as_index(index, count=3), rows)
        assert as_index(index, count=3).dtype == torch.int64


def test_adapting_with_numbers_in_tensors_and_arrays_is_adapting_with_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, 8, 8), generator=generator).to(torch.uint8)
    train, network = Images(images, torch.arange(6) % 2, ("a", "b")), Frozen(build("resnet8", classes=4, seed=0))
    rows = torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5]])
    plain = {"index": rows, "seeds": (3, 4), "epochs": 2, "batch": 2, "lr": 0.5}
    others = {
        "index": rows.numpy(), "seeds": torch.arange(3, 5), "epochs": np.int64(2), "batch": torch.tensor(2),
        "lr": torch.tensor(0.5),
    }  # fmt: skip
    for adapt in (
        lambda given: linear_probe(network, train, **given),
        lambda given: visual_prompt(network, train, canvas=16, **given),
        lambda given: visual_prompt(network, train, **given, canvas=torch.tensor(16), image_px=np.int32(8)),
    ):
        assert torch.equal(adapt(others)(images), adapt(plain)(images))


def test_a_recipe_keeps_what_was_checked() -> None:
    given = {"epochs": np.int64(1), "batch": torch.tensor(4), "lr": torch.tensor(0.5), "seed": np.uint8(0), "mixup": 1}
    recipe = Recipe(**{**RECIPE, **given})
    kinds = {field.name: type(getattr(recipe, field.name)) for field in dataclasses.fields(recipe)}
    assert {name: kinds[name] for name in given} == {"epochs": int, "batch": int, "lr": float, "seed": int, "mixup": float}
    assert recipe == Recipe(**{**RECIPE, "lr": 0.5, "mixup": 1.0})


def test_bits_in_arrays_are_bits() -> None:
    model, batch = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), torch.rand(4, 3)
    plain, other = (quantize(model, [batch], weight_bits=b, activation_bits=b) for b in (8, np.int8(8)))
    assert torch.equal(plain(batch), other(batch))


def test_lists_of_tensors_in_training_are_refused_by_name() -> None:
    wanting = [torch.ones(2, requires_grad=True)]
    with pytest.raises(InputError, match=r"`x` must be a tensor, an array, or lists of numbers .*requires grad"):
        as_tensor(wanting, name="x")
    with pytest.raises(InputError, match="`logits` must be"):
        metrics(wanting, [0])


def test_no_labels_are_labels() -> None:
    for none in ([], (), np.array([]), torch.empty(0), torch.empty(0, dtype=torch.int32)):
        found = as_labels(none)
        assert (found.shape, found.dtype) == ((0,), torch.int64)
    with pytest.raises(InputError, match=r"`labels` must have the shape \(2,\)"):
        as_labels([], size=2)


def test_what_a_network_says_of_its_inputs() -> None:
    model = nn.Linear(2, 2)
    for note in (None, {}, {"mean": None, "std": None}, "imagenet"):
        model.default_cfg = note
        assert statistics_of(model) == IMAGENET
    model.default_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    assert statistics_of(model) == ((0.5,) * 3, (0.25,) * 3)
    model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}
    with pytest.raises(
        InputError, match=r"of red, green and blue, got \(\(0.5,\), \(0.25,\)\), as the network says; .*grey"
    ):
        Frozen(model)
    assert statistics_of(model, IMAGENET) == IMAGENET


def test_a_network_for_grey_images_is_refused_for_what_it_is() -> None:
    grey = Frozen(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    train = Images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    with pytest.raises(InputError, match=r"8 x 8 px .*1 channels.*a network for images in three colours"):
        linear_probe(grey, train)
