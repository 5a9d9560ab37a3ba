"""Corruptions against their formulas, written out; and that an image is corrupted alone."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vpcore import InputError
from vpcore.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from vpcore.data.tasks import load


def drawn(count: int = 6, px: int = 64) -> torch.Tensor:
    return load("shapes", "test", px=px).images[::83][:count].clone()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alone(name: str) -> None:
    images, order = drawn(), torch.tensor([4, 0, 5, 1, 3, 2])
    before = images.clone()
    whole = corrupt(images, name, severity=2, seed=3)
    assert torch.equal(corrupt(images[order], name, severity=2, seed=3), whole[order])
    assert torch.equal(corrupt(images[2:3], name, severity=2, seed=3), whole[2:3])
    assert torch.equal(images, before)
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    assert corrupt(images[:0], name, severity=1, seed=0).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("px", [32, 64, 128])
def test_severities_are_ordered(name: str, px: int) -> None:
    images = drawn(px=px)
    errors = [
        float((corrupt(images, name, severity=severity, seed=0).float() - images).square().mean()) for severity in SEVERITIES
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize(("px", "expected"), [(16, 0.06), (64, 0.12), (144, 0.18)])
def test_noise_has_its_standard_deviation_and_draws_of_its_own(px: int, expected: float) -> None:
    grey = torch.full((max(1, 40_000 // px**2), 3, px, px), 128, dtype=torch.uint8)
    grey[:, 0, 0, 0] = torch.arange(len(grey))  # equal images would have equal noise
    noise = (corrupt(grey, "gaussian_noise", severity=2, seed=0).float() - 128)[:, 1] / 255
    assert float(noise.std()) == pytest.approx(expected, rel=0.03)
    assert abs(float(noise.mean())) < 0.01
    other = corrupt(grey, "gaussian_noise", severity=2, seed=1).float()[:, 1] / 255
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1])) < 0.03
    if len(noise) > 1:
        assert abs(float(torch.corrcoef(noise[:2].flatten(1))[0, 1])) < 0.3


@pytest.mark.parametrize(("severity", "width"), [(1, 0.5), (2, 1.0), (3, 1.5)])
@pytest.mark.parametrize("px", [32, 64])
def test_blur_is_the_sum_over_a_gaussian_window(severity: int, width: float, px: int) -> None:
    image = drawn(1, px)
    sigma, radius = width * (px / 64) ** 0.5, 9
    offsets = torch.arange(-radius, radius + 1).double()
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    wide = torch.nn.functional.pad(image.double(), (radius,) * 4, mode="replicate")
    expected = torch.zeros(1, 3, px, px, dtype=torch.float64)
    for i, row in enumerate(weights):
        for j, column in enumerate(weights):
            expected += row * column * wide[..., i : i + px, j : j + px]
    found = corrupt(image, "gaussian_blur", severity=severity, seed=0)
    assert float((found.double() - expected).abs().max()) <= 0.6  # rounding, and a window cut at 4 widths


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.4), (2, 0.2), (3, 0.05)])
def test_contrast_shrinks_each_channel_around_its_mean(severity: int, factor: float) -> None:
    images = drawn()
    found = corrupt(images, "contrast", severity=severity, seed=0).double()
    mean = images.double().mean((2, 3), keepdim=True)
    assert float((found - (mean + factor * (images.double() - mean))).abs().max()) <= 0.5 + 1e-9


@pytest.mark.parametrize(("severity", "quality"), [(1, 65), (2, 50), (3, 25)])
def test_jpeg_has_the_quantization_tables_of_its_quality(severity: int, quality: int) -> None:
    image = drawn(1)
    file = io.BytesIO()
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    found = corrupt(image, "jpeg", severity=severity, seed=0)
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gausian_noise"}, "unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'"),
        ({"severity": 4}, "`severity` must be a whole number of at least 1 and at most 3, got 4"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, got -1"),
        ({"images": torch.zeros(1, 3, 8, 8)}, r"`images` must be uint8 of the shape \(N, 3, px, px\), got torch.float32"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, r"got torch.uint8 of \(1, 1, 8, 8\)"),
        ({"images": torch.zeros(3, 8, 8, dtype=torch.uint8)}, r"of \(3, 8, 8\)"),
        ({"images": torch.zeros(1, 3, 8, 9, dtype=torch.uint8)}, r"of \(1, 3, 8, 9\)"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    given = {"images": drawn(1), "name": "contrast", "severity": 1, "seed": 0} | change
    with pytest.raises(InputError, match=message):
        corrupt(given["images"], given["name"], severity=given["severity"], seed=given["seed"])
