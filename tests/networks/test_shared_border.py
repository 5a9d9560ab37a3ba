import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vpcore.networks.backbones import build, normalise
from vpcore.networks.frozen import Frozen
from vpcore.networks.shared_border import Framed
from vpcore.prompting import prompts
from vpcore.prompting.fixed_prompts import MAX_IMAGE_SHARE, PadPrompt
from vpcore.quantization.layers import quantize

CONVOLUTIONAL = ("resnet18", "resnet50", "vgg11", "efficientnet-lite0")


def canvases(frame: Tensor, images: Tensor, top: int, left: int) -> Tensor:
    """(K n, 3, H, W): every image pasted into the frame of its prompt, pixel by pixel as one would."""
    height, width = frame.shape[2] - top - images.shape[2], frame.shape[3] - left - images.shape[3]
    return F.pad(images, (left, width, top, height)) + frame.repeat_interleave(len(images) // len(frame), 0)


def framed_and_plain(network: nn.Module, *, canvas: int, px: int, top: int, left: int) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradient of the border, computed in two parts and on whole canvases, for 2 prompts of 3 images."""
    generator = torch.Generator().manual_seed(top + 17 * left)
    frame = torch.randn(2, 3, canvas, canvas, dtype=torch.float64, generator=generator)
    frame[:, :, top : top + px, left : left + px] = 0
    images = torch.randn(6, 3, px, px, dtype=torch.float64, generator=generator)
    border = (frame != 0).double()
    found = []
    for name in ("framed", "plain"):
        learned = frame.clone().requires_grad_()
        shown = Framed(learned, images, top=top, left=left) if name == "framed" else canvases(learned, images, top, left)
        output = network(shown)
        output = output.whole() if isinstance(output, Framed) else output
        upstream = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        output.backward(upstream)
        found.append([output.detach(), learned.grad * border])
    return tuple(found)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (2, 2, 0), (3, 1, 0), (3, 2, 1), (5, 3, 2), (7, 2, 3)]
)
def test_windows_see_what_they_see_on_the_whole_canvas(kernel: int, stride: int, padding: int) -> None:
    """Every place of an image of 1 to 4 px on a canvas of 15 px, at its edges as well, and windows that miss it."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, kernel, stride, padding), nn.ReLU(True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 3, 3, 1, 1)
    ).double()
    for px, top in itertools.product((1, 2, 4), range(12)):
        parts, whole = framed_and_plain(network, canvas=15, px=px, top=top, left=11 - top)
        for ours, expected in zip(parts, whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, "resnet8", "deit-tiny"])
def test_networks_compute_what_they_compute_on_the_whole_canvas(name: str) -> None:
    """Also those whose parts are not known here: a vision transformer gets the whole canvas."""
    canvas = 224 if name == "deit-tiny" else 64
    network = build(name, classes=5, seed=0).eval().double().requires_grad_(False)
    parts, whole = framed_and_plain(network, canvas=canvas, px=8, top=28, left=canvas - 40)
    for ours, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()) + 1e-15)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_fewer_multiplications_are_done(name: str) -> None:
    """As torch counts them, forward and backward, for 16 images of 32 px on 224 px."""
    with torch.device("meta"):  # sizes alone
        network = build(name, classes=5, seed=0).eval().requires_grad_(False)
        frame, images = torch.zeros(1, 3, 224, 224, requires_grad=True), torch.zeros(16, 3, 32, 32)
    counts = []
    for views in (Framed(frame, images, top=96, left=96), canvases(frame, images, 96, 96)):
        with FlopCounterMode(display=False) as counter:
            network(views).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.7 * counts[1]


def test_small_images_are_shown_in_two_parts_and_large_ones_whole() -> None:
    canvas, images = 40, torch.rand(2, 3, 3, 8, 8)
    prompt = PadPrompt(2, canvas=canvas, image_px=8)
    with torch.no_grad():
        prompt.program.normal_()
    views = prompt.views(images)
    assert isinstance(views, Framed)
    assert views.shape == (6, 3, canvas, canvas)
    torch.testing.assert_close(views.whole(), prompt(images).flatten(0, 1), rtol=0, atol=0)
    px = next(px for px in range(8, canvas) if (px / canvas) ** 2 > MAX_IMAGE_SHARE["cpu"])
    large = PadPrompt(2, canvas=canvas, image_px=px)
    assert isinstance(large.views(torch.rand(2, 3, 3, px, px)), Tensor)
    for name in ("frame", "watermark", "fixed_patch", "random_patch"):
        other = prompts.build(name, canvas=canvas, image_px=8, seeds=[0, 1])
        assert isinstance(other.views(torch.rand(2, 3, 3, canvas, canvas)), Tensor)


@pytest.mark.parametrize(("bits", "precision"), [(32, "float32"), (4, "float32"), (32, "bf16"), (8, "bf16")])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet-lite0"])
def test_frozen_networks_take_them(name: str, bits: int, precision: str, cpu: torch.device) -> None:
    """Quantized ones as well, in either precision: logits and the gradient of the program as of whole canvases."""
    images = torch.rand(1, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prompt = PadPrompt(1, canvas=96, image_px=16)
    with torch.no_grad():
        prompt.program.normal_(generator=torch.Generator().manual_seed(1))
    network = build(name, classes=50, seed=0).eval()
    shown = [normalise(prompt(images)[0].detach())]
    if bits < 32:
        network = quantize(network, shown, weight_bits=bits, activation_bits=bits, quant_range="minmax")
    frozen = Frozen(network, precision=precision, device=cpu)
    found = []
    for views in (prompt.views(images), prompt(images).flatten(0, 1)):
        prompt.zero_grad()
        logits = frozen(views)
        logits.square().sum().backward()
        found.append((logits.detach(), prompt.program.grad.clone()))
    (ours, our_gradient), (theirs, their_gradient) = found
    assert isinstance(prompt.views(images), Framed)
    loose = {"float32": 1e-4 if bits == 32 else 0.05, "bf16": 0.1}[precision]  # a rounding may flip an integer
    assert float((ours - theirs).norm() / theirs.norm()) < loose
    assert float((our_gradient - their_gradient).norm() / their_gradient.norm()) < 4 * loose
