import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vpcore import InputError, mapping, transfer
from vpcore.models import Frozen
from vpcore.prompting import PadPrompt

from .test_models import warmed


@pytest.fixture
def network(cpu: torch.device) -> Frozen:
    """In float64: in float32 the rounding of another batch size may decide a near tie of two source classes."""
    frozen = Frozen(warmed(), precision="float32", device=cpu).double()
    frozen.dtype = torch.float64
    return frozen


def task(n: int = 24, targets: int = 3, px: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, px, px), generator=generator, dtype=torch.uint8), torch.arange(n) % targets


SETTINGS = {"targets": 3, "canvas": 32, "epochs": 6, "lr": 0.1}


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


def test_bad_size() -> None:
    with pytest.raises(InputError, match=r"`image_px` must be in 1\.\.31, below the canvas of 32 px, got 32"):
        PadPrompt(1, canvas=32, image_px=32)


@pytest.mark.parametrize("batch", [128, 8, 10])
def test_a_cohort_learns_what_its_members_learn_alone(network: Frozen, batch: int) -> None:
    images, labels = task()
    index = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(k))[:21] for k in range(3)])
    together = transfer.visual_prompt(network, images, labels, index, batch=batch, seeds=[5, 6, 7], **SETTINGS)
    for k in range(3):
        alone = transfer.visual_prompt(network, images, labels, index[k : k + 1], batch=batch, seeds=[5 + k], **SETTINGS)
        assert torch.equal(alone.mapping[0], together.mapping[k])
        torch.testing.assert_close(alone.program[0], together.program[k], rtol=1e-3, atol=1e-3)


def reference_prompt(network: Frozen, images, labels, *, epochs: int, batch: int, lr: float, seed: int) -> tuple:
    """ILM-VP as its authors write it down: one prompt, a pass for the mapping before every epoch, then the batches."""
    program = torch.zeros(3, 32, 32, requires_grad=True)
    outside = torch.ones(32, 32)
    outside[8:24, 8:24] = 0
    optimizer = torch.optim.Adam([program], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.5 * epochs), int(0.72 * epochs)], gamma=0.1)
    priority = mapping.priorities([seed], targets=3, sources=7)
    generator = torch.Generator().manual_seed(seed)

    def logits(x: torch.Tensor) -> torch.Tensor:
        return network(F.pad(x.float() / 255, [8] * 4) + outside * torch.sigmoid(program))

    def find() -> torch.Tensor:
        with torch.no_grad():
            return mapping.greedy(mapping.frequencies(logits(images)[None], labels[None], targets=3), priority)[0]

    for _ in range(epochs):
        current = find()
        order = torch.randperm(len(images), generator=generator) if len(images) > batch else torch.arange(len(images))
        for rows in order.split(batch):
            loss = F.cross_entropy(logits(images[rows])[:, current], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return program.detach(), find()


@pytest.mark.parametrize("batch", [128, 8])
def test_prompting_agrees_with_the_plain_algorithm(network: Frozen, batch: int) -> None:
    """Also where one pass serves for the mapping and the step."""
    images, labels = task()
    ours = transfer.visual_prompt(network, images, labels, torch.arange(24)[None], batch=batch, seeds=[4], **SETTINGS)
    program, final = reference_prompt(network, images, labels, epochs=6, batch=batch, lr=0.1, seed=4)
    assert ours.mapping[0].tolist() == final.tolist()
    border = ours.prompt.border.bool()
    torch.testing.assert_close(ours.program[0][:, border], program[:, border], rtol=1e-3, atol=1e-3)


def test_predictions_are_those_of_the_prompted_images(network: Frozen) -> None:
    images, labels = task()
    index = torch.stack([torch.arange(12), torch.arange(12, 24)])
    prompted = transfer.visual_prompt(network, images, labels, index, batch=128, seeds=[0, 1], **SETTINGS)
    logits = transfer.prompted_logits(network, prompted, images)
    assert logits.shape == (2, 24, 3)
    for k in range(2):
        with torch.no_grad():
            views = F.pad(images.float() / 255, [8] * 4) + prompted.prompt.border * torch.sigmoid(prompted.program[k])
            torch.testing.assert_close(logits[k], network(views)[:, prompted.mapping[k]], rtol=1e-4, atol=1e-4)


def test_prompting_lowers_the_loss(network: Frozen) -> None:
    images, labels = task()
    settings = {**SETTINGS, "epochs": 60}
    prompted = transfer.visual_prompt(network, images, labels, torch.arange(24)[None], batch=128, seeds=[0], **settings)
    assert prompted.loss[-1] < 0.9 * prompted.loss[0]


def features(n: int = 90, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    return torch.randn(n, width, generator=generator) + 3 * F.one_hot(labels, width).float(), labels


@pytest.mark.parametrize("batch", [128, 16])
def test_a_probe_is_a_linear_layer_trained_with_adam(batch: int) -> None:
    x, labels = features()
    probe = transfer.linear_probe(x, labels, torch.arange(90)[None], targets=3, epochs=10, batch=batch, lr=0.01, seeds=[2])
    generator = torch.Generator().manual_seed(2)
    layer, bound = nn.Linear(12, 3), 12**-0.5
    with torch.no_grad():
        layer.weight.copy_(((torch.rand(12, 3, generator=generator) * 2 - 1) * bound).T)
        layer.bias.copy_((torch.rand(1, 3, generator=generator)[0] * 2 - 1) * bound)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 7], gamma=0.1)
    for _ in range(10):
        for rows in torch.randperm(90, generator=generator).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(probe(x)[0], layer(x), rtol=1e-4, atol=1e-4)


def test_probes_of_a_cohort_do_not_meet() -> None:
    x, labels = features()
    index = torch.stack([torch.arange(30), torch.arange(30, 60)])
    settings = {"targets": 3, "epochs": 60, "batch": 16, "lr": 0.01}
    together = transfer.linear_probe(x, labels, index, seeds=[0, 1], **settings)(x)
    for k in range(2):
        alone = transfer.linear_probe(x, labels, index[k : k + 1], seeds=[k], **settings)(x)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-4)
    accuracy = (together.argmax(2) == labels).float().mean(1)
    assert bool((accuracy > 0.8).all())


def test_a_diverging_prompt_is_an_error(network: Frozen) -> None:
    images, labels = task()
    broken = Frozen(warmed(), precision="float32", device=network.device)
    broken.head.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="loss must be a finite number, got nan in epoch 1 of visual prompting"):
        transfer.visual_prompt(broken, images, labels, torch.arange(24)[None], batch=128, seeds=[0], **SETTINGS)
