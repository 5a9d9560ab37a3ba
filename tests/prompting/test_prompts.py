import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore import InputError
from vpcore.networks.backbones import normalise
from vpcore.prompting.fixed_prompts import RANK, UNIT, PadPrompt, Prompt
from vpcore.prompting.moving_prompts import PACE
from vpcore.prompting.prompts import PROMPTS, build, input_px
from vpcore.prompting.smm import WIDTHS, MaskNetwork

CANVAS, IMAGE = 16, 10
UNCUT = tuple(name for name in PROMPTS if name not in ("pad", "scale"))  # the image fills the canvas and is added to


def images_for(name: str, *, cohort: int, count: int = 5, seed: int = 0) -> Tensor:
    px = input_px(name, canvas=CANVAS, image_px=IMAGE)
    return torch.rand(cohort, count, 3, px, px, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(name: str, seeds: list[int]) -> Prompt:
    """A prompt in float64 whose parameters have left their start; those of a member depend on its seed alone."""
    prompt = build(name, canvas=CANVAS, image_px=IMAGE, seeds=seeds).double()
    for parameter in prompt.parameters():
        for row, seed in zip(parameter.data, seeds, strict=True):
            row += 0.2 * torch.randn(row.shape, generator=torch.Generator().manual_seed(seed)).double()
    return prompt


@pytest.mark.parametrize("name", PROMPTS)
def test_the_start(name: str) -> None:
    """What is added starts at nothing, a border starts mid-grey; the global generator stays as it is."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    prompt = build(name, canvas=CANVAS, image_px=IMAGE, seeds=[3, 4]).double()
    images = images_for(name, cohort=2)
    expected = images if name in UNCUT else F.pad(images, [3] * 4, value=0.5)
    for mode in (True, False):
        torch.testing.assert_close(prompt.train(mode)(images), expected)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", PROMPTS)
def test_a_member_is_what_it_is_alone(name: str) -> None:
    """Images, losses, state and gradients over some steps, in float64; members get different images."""
    seeds = [5, 6, 7]
    images = images_for(name, cohort=3)
    target = torch.rand(3, 5, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def learn(prompt: Prompt, members: slice) -> tuple[Tensor, dict[str, Tensor]]:
        optimizer = torch.optim.Adam(prompt.parameters(), lr=0.01)
        for _ in range(4):
            optimizer.zero_grad()
            ((prompt(images[members]) - target[members]) ** 2).flatten(1).mean(1).sum().backward()
            optimizer.step()
        return prompt.eval()(images[members]).detach(), prompt.state_dict()

    shown, state = learn(shaken(name, seeds), slice(None))
    for k in range(3):
        alone, own = learn(shaken(name, seeds[k : k + 1]), slice(k, k + 1))
        torch.testing.assert_close(alone[0], shown[k], rtol=1e-9, atol=1e-9)
        assert own.keys() == state.keys()
        for key, value in state.items():
            assert len(value) == 3
            torch.testing.assert_close(own[key][0], value[k], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PROMPTS)
def test_members_never_meet(name: str) -> None:
    prompt = shaken(name, [0, 1])
    prompt(images_for(name, cohort=2))[0].sum().backward()
    for parameter in prompt.parameters():
        assert bool((parameter.grad[1] == 0).all())
    assert any(bool((parameter.grad[0] != 0).any()) for parameter in prompt.parameters())


@pytest.mark.parametrize("name", ["pad", "frame", "watermark", "fixed_patch", "random_patch"])
def test_size_counts_what_has_an_effect(name: str) -> None:
    prompt = shaken(name, [0])
    weight = torch.rand(CANVAS, CANVAS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (prompt(images_for(name, cohort=1)) * weight).pow(3).sum().backward()
    assert prompt.size == sum(int((parameter.grad != 0).sum()) for parameter in prompt.parameters())
    border = 3 * (CANVAS**2 - IMAGE**2)
    patch, whole = 3 * (CANVAS - IMAGE) ** 2, 3 * CANVAS**2
    known = {"pad": border, "frame": border, "watermark": whole, "fixed_patch": patch, "random_patch": patch}
    assert prompt.size == known[name]


@pytest.mark.parametrize(("image_px", "canvas"), [(4, 8), (5, 8), (7, 8)])
def test_the_image_is_untouched_and_the_border_is_learned(image_px: int, canvas: int) -> None:
    prompt = PadPrompt(2, canvas=canvas, image_px=image_px)
    images = torch.rand(2, 3, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))
    prompt.program.data.normal_(generator=torch.Generator().manual_seed(1))
    out = prompt(images)
    before = (canvas - image_px) // 2
    inside = slice(before, before + image_px)
    assert torch.equal(out[..., inside, inside], images)
    frame = torch.sigmoid(prompt.program)[:, None].expand_as(out).clone()
    frame[..., inside, inside] = images
    torch.testing.assert_close(out, frame)
    out.sum().backward()
    assert bool((prompt.program.grad[..., inside, inside] == 0).all())
    assert bool((prompt.program.grad[..., prompt.border.bool()] != 0).all())


@pytest.mark.parametrize(("name", "rows", "columns"), [
    ("frame", [*range(3), *range(13, 16)], range(16)),
    ("watermark", range(16), range(16)),
    ("fixed_patch", range(6), range(6)),
])  # fmt: skip
def test_programs_are_added_to_the_normalised_image_without_a_limit(name: str, rows: list[int], columns: list[int]) -> None:
    """As in the code of Bahng et al., who normalise first: x + program where there is one."""
    prompt, images = shaken(name, [0, 1]), images_for(name, cohort=2)
    prompt.program.data *= 30
    where = torch.zeros(16, 16, dtype=torch.float64)
    for row, column in itertools.product(rows, columns):
        where[row, column] = 1
        where[column, row] = 1  # a frame is also left and right
    out = prompt(images)
    torch.testing.assert_close(normalise(out), normalise(images) + (where * prompt.program)[:, None])
    assert torch.equal(out[..., where == 0], images[..., where == 0])
    assert float(out.detach().min()) < -0.5
    assert float(out.detach().max()) > 1.5


def test_low_rank_programs_are_products_that_start_at_nothing() -> None:
    """As in the paper: the image plus B A, of rank 4 for each channel, with B = 0 and A drawn from the seed."""
    prompt, images = build("lor", canvas=CANVAS, image_px=IMAGE, seeds=[3, 4]).double(), images_for("lor", cohort=2)
    assert not prompt.columns.any()
    assert float(prompt.rows.detach().std()) == pytest.approx(1, abs=0.1)
    assert not torch.equal(prompt.rows[0], prompt.rows[1])
    with torch.no_grad():
        prompt.columns.normal_(generator=torch.Generator().manual_seed(1))
    added = prompt(images) - images
    expected = torch.einsum("kchr,kcrw->kchw", prompt.columns, prompt.rows)
    torch.testing.assert_close(added, expected[:, None].expand_as(added))
    assert torch.linalg.matrix_rank(added.detach()).unique().tolist() == [RANK]
    assert prompt.size == sum(parameter[0].numel() for parameter in prompt.parameters()) == 3 * 2 * RANK * CANVAS


def test_random_patches_lie_where_their_generator_says() -> None:
    seeds = [0, 1]
    prompt, images = shaken("random_patch", seeds), images_for("random_patch", cohort=2)
    patch, generators = prompt.program.detach() * UNIT, [torch.Generator().manual_seed(seed) for seed in seeds]

    def expected(places: list[Tensor]) -> Tensor:
        out = images.clone()
        for k, n in itertools.product(range(2), range(5)):
            row, column = places[k][n % len(places[k])].tolist()
            out[k, n, :, row : row + 6, column : column + 6] += patch[k]
        return out

    in_test = [torch.randint(11, (1, 2), generator=generator) for generator in generators]
    for _ in range(3):
        places = [torch.randint(11, (5, 2), generator=generator) for generator in generators]
        torch.testing.assert_close(prompt.train()(images).detach(), expected(places), rtol=0, atol=0)
        torch.testing.assert_close(prompt.eval()(images).detach(), expected(in_test), rtol=0, atol=0)
    torch.testing.assert_close(prompt.eval()(images[:, 2:3])[:, 0], prompt.eval()(images)[:, 2])


def test_all_places_of_a_random_patch_are_as_likely() -> None:
    prompt = build("random_patch", canvas=16, image_px=12, seeds=[0])  # a patch of 4 px: 13 places either way
    share = torch.bincount(prompt.draw(20_000).flatten(), minlength=13) / 40_000
    torch.testing.assert_close(share, torch.full((13,), 1 / 13), rtol=0.08, atol=0)


@pytest.mark.parametrize("scale", [0.55, 0.9, 1.0, 1.3, 1.6, 2.4])
def test_scale_is_bilinear_interpolation_about_the_centre(scale: float) -> None:
    """The image as scipy resizes it, and a border around the square that it fills, cut to whole px."""
    prompt, images = shaken("scale", [0]), images_for("scale", cohort=1, count=2)
    prompt.zoom.data.fill_((scale - 1) / PACE)
    offset = (IMAGE - 1) / 2 - (CANVAS - 1) / 2 / scale
    resized = np.stack([
        scipy.ndimage.affine_transform(
            channel, [1 / scale] * 2, offset, output_shape=(CANVAS, CANVAS), order=1, mode="grid-constant"
        )
        for channel in images.numpy().reshape(-1, IMAGE, IMAGE)
    ]).reshape(1, 2, 3, CANVAS, CANVAS)  # fmt: skip
    side = min(int(IMAGE * scale), CANVAS)
    before = (CANVAS - side) // 2
    border = torch.sigmoid(prompt.program.detach()).clone()
    border[..., before : before + side, before : before + side] = 0
    torch.testing.assert_close(prompt(images).detach(), torch.from_numpy(resized) + border[:, None], rtol=0, atol=1e-12)


def test_the_gradient_of_the_scale() -> None:
    prompt, images = shaken("scale", [0, 1]), images_for("scale", cohort=2)
    prompt.zoom.data.copy_((torch.tensor([0.83, 1.27]) - 1) / PACE)
    weight = torch.rand(CANVAS, CANVAS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(zoom: Tensor) -> Tensor:
        return (torch.func.functional_call(prompt, {"zoom": zoom * 1}, (images,)) * weight).sum((1, 2, 3, 4))

    assert torch.autograd.gradcheck(total, (prompt.zoom.detach().requires_grad_(),), eps=1e-6)


@pytest.mark.parametrize(("start", "kept"), [(-3.0, 0.1), (0.7, 0.7), (9.0, 5.0)])
def test_the_scale_is_kept_within_limits(start: float, kept: float) -> None:
    prompt = build("scale", canvas=16, image_px=10, seeds=[0])
    prompt.zoom.data.fill_((start - 1) / PACE)
    assert bool(torch.isfinite(prompt(torch.rand(1, 1, 3, 10, 10, generator=torch.Generator().manual_seed(0)))).all())
    assert float(prompt.scale.detach()) == pytest.approx(kept)


def official_mask(member: int, ours: MaskNetwork) -> nn.Sequential:
    """The mask network of Cai et al. for ResNets, put together from torch's own layers, with the weights of a member."""
    layers: list[nn.Module] = []
    for number, (before, width) in enumerate(itertools.pairwise(WIDTHS)):
        convolution = nn.Conv2d(before, width, 3, 1, 1)
        convolution.load_state_dict({key: value[member] for key, value in ours.convolutions[number].state_dict().items()})
        layers += [convolution, *([nn.BatchNorm2d(width), nn.ReLU()] if width != 3 else [])]
        layers += [nn.MaxPool2d(2, 2)] if number < 3 else []
    return nn.Sequential(*layers).double()


def test_smm_is_that_of_its_authors() -> None:
    """Patches of the mask, statistics of the batch norms in training, and what is shown afterwards."""
    prompt, images = build("smm", canvas=CANVAS, image_px=IMAGE, seeds=[0, 1]).double(), images_for("smm", cohort=2)
    prompt.program.data.normal_(generator=torch.Generator().manual_seed(0))
    for k in range(2):
        network = official_mask(k, prompt.mask)
        ours = build("smm", canvas=CANVAS, image_px=IMAGE, seeds=[0, 1]).double()
        ours.load_state_dict(prompt.state_dict())
        for mode in (True, True, False):
            values = network.train(mode)(normalise(images[k]))
            mask = values.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
            expected = images[k] + UNIT.double() * prompt.program[k] * mask
            torch.testing.assert_close(ours.train(mode)(images)[k], expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ours.mask.norms[1].mean[k], network[5].running_mean)
        torch.testing.assert_close(ours.mask.norms[1].variance[k], network[5].running_var)
    assert sum(parameter.numel() for parameter in network.parameters()) == 26_499
    assert prompt.size == 3 * CANVAS**2 + 26_499


def test_mask_networks_start_as_torch_starts_them() -> None:
    network, other = MaskNetwork([1, 2]), MaskNetwork([2])
    for number, (before, width) in enumerate(itertools.pairwise(WIDTHS)):
        reference, ours = nn.Conv2d(before, width, 3, 1, 1), network.convolutions[number]
        bound = float(reference.weight.detach().abs().max())
        assert float(ours.weight.detach().abs().max()) == pytest.approx(bound, rel=0.05)
        assert ours.weight[0].shape == reference.weight.shape
        assert torch.equal(ours.weight[1], other.convolutions[number].weight[0])
        assert not torch.equal(ours.weight[0], ours.weight[1])
        assert ours.bias.shape == (2, width)
        assert ours.bias.abs().max() <= (before * 9) ** -0.5  # torch's bound
        assert not (ours.bias[..., None] == ours.weight.flatten(2)).all(1).any()  # draws of their own


@pytest.mark.parametrize("name", PROMPTS)
def test_input_px_is_what_the_prompt_takes(name: str) -> None:
    px = input_px(name, canvas=32, image_px=20)
    assert px == (32 if name in UNCUT else 20)
    assert build(name, canvas=32, image_px=20, seeds=[0, 1])(torch.zeros(2, 4, 3, px, px)).shape == (2, 4, 3, 32, 32)


@pytest.mark.parametrize("name", ["pad", "frame", "fixed_patch", "random_patch", "scale"])
@pytest.mark.parametrize("image_px", [0, 32, 40])
def test_bad_size(name: str, image_px: int) -> None:
    message = rf"`image_px` must be (in 1\.\.31, below the canvas of 32 px|a whole number of at least 1), got {image_px}"
    with pytest.raises(InputError, match=message):
        build(name, canvas=32, image_px=image_px, seeds=[0])


def test_smm_cuts_the_canvas_into_patches() -> None:
    with pytest.raises(InputError, match="`canvas` must be a multiple of 8 px for the prompt 'smm', got 30"):
        build("smm", canvas=30, image_px=10, seeds=[0])


def test_unknown_prompt() -> None:
    for call in (lambda: build("pda", canvas=16, image_px=8, seeds=[0]), lambda: input_px("pda", canvas=16, image_px=8)):
        with pytest.raises(InputError, match="unknown prompt 'pda'; did you mean 'pad'"):
            call()
