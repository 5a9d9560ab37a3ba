import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.prompting.tiny_network import tinted, tiny_network
from vpcore import InputError
from vpcore.networks.frozen import Frozen
from vpcore.prompting import prompts as prompting
from vpcore.prompting.label_mapping import MAPPINGS, priorities, target_logits
from vpcore.prompting.prompts import PROMPTS, Prompt, build, input_px
from vpcore.prompting.visual_prompting import Prompted, prompted_logits, visual_prompt


def task(prompt: str = "pad", *, tint: int = 80) -> tuple[Tensor, Tensor]:
    """24 images of the side that a prompt wants."""
    return tinted(px=input_px(prompt, canvas=16, image_px=8), tint=tint)


@pytest.fixture
def network(cpu: torch.device) -> Frozen:
    """A tiny one, in float64: in float32 the rounding of another batch size may decide a near tie of two source classes."""
    model = tiny_network()
    frozen = Frozen(model, precision="float32", device=cpu).double()
    frozen.dtype = torch.float64
    return frozen


SETTINGS = {"targets": 3, "canvas": 16, "image_px": 8, "epochs": 5, "lr": 0.1}
REPEATED = ("ilm", "ilm-running", "assignment", "blm", "blm+")  # found anew before every epoch
METHODS = [*((prompt, "ilm") for prompt in PROMPTS), *(("pad", name) for name in MAPPINGS if name != "ilm"), ("smm", "blm+")]


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts in float64 as well, so that Adam does not enlarge the rounding of gradients that are zero."""

    def doubled(name: str, *, canvas: int, image_px: int, seeds: list[int]) -> Prompt:
        prompt = build(name, canvas=canvas, image_px=image_px, seeds=seeds).double()
        prompt.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
        return prompt

    monkeypatch.setattr(prompting, "build", doubled)
    monkeypatch.setattr("vpcore.prompting.visual_prompting.build", doubled)


@dataclass(frozen=True)
class Epoch:
    """What the plain algorithm has after an epoch."""

    state: dict[str, Tensor]
    used: Tensor  # the mapping that the epoch was trained with
    now: Tensor  # that of the prompt as it is
    accuracy: tuple[float, float]  # on all images, under either


def plain(
    network: Frozen, images: Tensor, labels: Tensor, *, prompt: str, name: str, epochs: int, batch: int, lr: float, seed: int
) -> list[Epoch]:
    """Visual prompting as its authors write it down: one prompt, a pass for the mapping before every epoch, the batches."""
    rule, seeds, repeat = MAPPINGS[name], [seed], name in REPEATED
    module = prompting.build(prompt, canvas=16, image_px=8, seeds=seeds)
    current = rule.draw(seeds, targets=3, sources=7) if rule.draw else None
    learned = [current.requires_grad_()] if name == "full" else []
    optimizer = torch.optim.Adam([*module.parameters(), *learned], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.5 * epochs), int(0.72 * epochs)], gamma=0.1)
    priority, generator = priorities(seeds, targets=3, sources=7), torch.Generator().manual_seed(seed)
    history = []

    def logits(rows: Tensor) -> Tensor:
        return network(module(images[None, rows].float() / 255)[0])[None]

    def predict() -> Tensor:
        module.eval()
        with torch.no_grad():
            return logits(torch.arange(len(images)))

    def accuracy(way: Tensor) -> float:
        return float((target_logits(predict(), way).argmax(2)[0] == labels).double().mean())

    for epoch in range(epochs):
        if rule.find and (epoch == 0 or (repeat and name != "ilm-running")):
            current = rule.find(predict(), labels[None], priority)
        order = torch.randperm(len(images), generator=generator) if len(images) > batch else torch.arange(len(images))
        seen = []
        for rows in order.split(batch):
            module.train()
            seen.append(logits(rows))
            loss = F.cross_entropy(target_logits(seen[-1], current)[0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        used = current.detach().clone()
        if name == "ilm-running":
            current = rule.find(torch.cat(seen, 1), labels[None, order], priority)
        now = rule.find(predict(), labels[None], priority) if repeat else used
        state = {key: value.clone() for key, value in module.state_dict().items()}
        history.append(Epoch(state, used, now, (accuracy(used), accuracy(now))))
    return history


def same(ours: Prompted, state: dict[str, Tensor], way: Tensor) -> None:
    """The first member has this state and reads it this way."""
    torch.testing.assert_close(ours.mapping[:1], way, rtol=1e-5, atol=1e-5)
    for key, value in state.items():
        torch.testing.assert_close(ours.prompt.state_dict()[key][:1], value, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("prompt", "name"), METHODS)
@pytest.mark.parametrize("batch", [128, 10])
def test_prompting_agrees_with_the_plain_algorithm(network: Frozen, prompt: str, name: str, batch: int) -> None:
    """Also where one pass serves for the mapping and the step."""
    images, labels = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {"prompt": prompt, "epochs": 5, "batch": batch, "lr": 0.1}
    history = plain(network, images, labels, name=name, seed=4, **settings)
    settings |= {"targets": 3, "canvas": 16, "image_px": 8, "mapping": name, "seeds": [4]}
    ours = visual_prompt(network, images, labels, torch.arange(24)[None], **settings)
    same(ours, history[-1].state, history[-1].now)
    if prompt == "pad":  # so that a mapping that is found too often, or not often enough, would be seen
        assert (name in REPEATED) != all(torch.equal(epoch.used, epoch.now) for epoch in history)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("prompt", "name", "batch"), [("pad", "ilm", 128), ("pad", "blm", 10), ("smm", "blm+", 128)])
def test_a_stale_mapping_is_that_of_the_last_epoch(network: Frozen, prompt: str, name: str, batch: int) -> None:
    images, labels = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {"prompt": prompt, "epochs": 1, "batch": batch, "lr": 200.0}  # of one epoch, by the schedule a hundredth
    last = plain(network, images, labels, name=name, seed=4, **settings)[-1]
    settings |= {"targets": 3, "canvas": 16, "image_px": 8, "mapping": name, "seeds": [4]}
    stale = visual_prompt(network, images, labels, torch.arange(24)[None], stale=True, **settings)
    same(stale, last.state, last.used)
    assert not torch.equal(last.used, last.now)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("prompt", "name"), METHODS)
def test_a_cohort_learns_what_its_members_learn_alone(network: Frozen, prompt: str, name: str) -> None:
    images, labels = task(prompt)
    index = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(k))[:21] for k in range(3)])
    for batch in (128, 10) if (prompt, name) == ("pad", "ilm") else (10,):
        settings = {**SETTINGS, "prompt": prompt, "mapping": name, "batch": batch}
        together = visual_prompt(network, images, labels, index, seeds=[5, 6, 7], **settings)
        logits = prompted_logits(network, together, images)
        for k in range(3):
            alone = visual_prompt(network, images, labels, index[k : k + 1], seeds=[5 + k], **settings)
            assert alone.learned.keys() == together.learned.keys()
            for key, value in together.learned.items():
                torch.testing.assert_close(alone.learned[key][0], value[k], rtol=1e-5, atol=1e-5)
            assert torch.equal(alone.sources[0], together.sources[k])
            torch.testing.assert_close(prompted_logits(network, alone, images)[0], logits[k], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("prompt", "name"), [("pad", "ilm"), ("smm", "blm"), ("frame", "full")])
@pytest.mark.parametrize("stale", [False, True])
def test_the_best_epoch_is_picked_for_each_member(network: Frozen, prompt: str, name: str, stale: bool) -> None:
    """The first of the epochs with the highest accuracy on the images given, prompt and mapping as they were then."""
    images, labels = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {**SETTINGS, "prompt": prompt, "mapping": name, "batch": 10, "stale": stale, "select": (images, labels)}
    ours = visual_prompt(network, images, labels, torch.arange(24).expand(3, -1), seeds=[4, 5, 6], **settings)
    picked = []
    for seed in (4, 5, 6):
        history = plain(network, images, labels, prompt=prompt, name=name, epochs=5, batch=10, lr=0.1, seed=seed)
        accuracy = [epoch.accuracy[not stale] for epoch in history]
        picked.append(accuracy.index(max(accuracy)))
        if seed == 4:
            best = history[picked[0]]
            same(ours, best.state, best.used if stale else best.now)
    assert ours.epoch == [number + 1 for number in picked]
    assert ours.epoch != [SETTINGS["epochs"]] * 3
    assert len(ours.loss) == SETTINGS["epochs"]


def test_predictions_are_those_of_the_prompted_images(network: Frozen) -> None:
    images, labels = task()
    index = torch.stack([torch.arange(12), torch.arange(12, 24)])
    prompted = visual_prompt(network, images, labels, index, batch=128, seeds=[0, 1], **SETTINGS)
    logits = prompted_logits(network, prompted, images)
    program = prompted.learned["program"]
    assert logits.shape == (2, 24, 3)
    assert prompted.epoch == [5, 5]
    for k in range(2):
        with torch.no_grad():
            views = F.pad(images.float() / 255, [4] * 4) + prompted.prompt.border * torch.sigmoid(program[k])
            torch.testing.assert_close(logits[k], network(views)[:, prompted.mapping[k]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prompt", "name"), METHODS)
def test_what_is_learned_is_enough_to_predict(network: Frozen, prompt: str, name: str) -> None:
    """The saved tensors of one member, put into a fresh prompt, give its predictions, whatever the size of the batches."""
    images, labels = task(prompt)
    settings = {**SETTINGS, "epochs": 2, "prompt": prompt, "mapping": name, "batch": 10, "seeds": [0, 1]}
    prompted = visual_prompt(network, images, labels, torch.arange(24).expand(2, -1), **settings)
    saved = {key: value[1:].clone() for key, value in prompted.learned.items()}
    matrix = saved.pop("mapping", prompted.sources[1:])
    fresh = build(prompt, canvas=16, image_px=8, seeds=[9]).eval()
    fresh.load_state_dict(saved)
    alone = Prompted(fresh, matrix, [], [2])
    logits = prompted_logits(network, prompted, images)[1]
    torch.testing.assert_close(prompted_logits(network, alone, images)[0], logits, rtol=1e-4, atol=1e-4)
    parts = torch.cat([prompted_logits(network, alone, part)[0] for part in images.split(7)])
    torch.testing.assert_close(parts, logits, rtol=1e-4, atol=1e-4)
    assert prompted.sources.shape == (2, 3)
    assert prompted.sources.dtype == torch.int64


@pytest.mark.parametrize(("prompt", "name"), [
    *METHODS, ("watermark", "random"), ("frame", "assignment"), ("fixed_patch", "blm"), ("scale", "full"), ("smm", "full"),
])  # fmt: skip
def test_prompting_lowers_the_loss(network: Frozen, prompt: str, name: str) -> None:
    images, labels = task(prompt)
    settings = {**SETTINGS, "epochs": 16, "lr": 0.05, "prompt": prompt, "mapping": name, "batch": 128, "seeds": [0]}
    loss = visual_prompt(network, images, labels, torch.arange(24)[None], **settings).loss
    assert loss[-1] < 0.97 * loss[0]


@pytest.mark.parametrize("epochs", [0, 1])
def test_frequency_mappings_see_the_untouched_prompt(network: Frozen, epochs: int) -> None:
    images, labels = task()
    settings = {**SETTINGS, "epochs": epochs, "mapping": "frequency", "batch": 128, "seeds": [3]}
    prompted = visual_prompt(network, images, labels, torch.arange(24)[None], **settings)
    with torch.no_grad():
        logits = network(F.pad(images.float() / 255, [4] * 4, value=0.5))[None]
    priority = priorities([3], targets=3, sources=7)
    assert torch.equal(prompted.mapping, MAPPINGS["ilm"].find(logits, labels[None], priority))


def test_ties_go_where_they_are_sent(network: Frozen) -> None:
    """One image in all: every class but one of the task has no count, and the lowest source classes are taken."""
    images, labels = task()
    settings = {**SETTINGS, "epochs": 1, "batch": 128, "seeds": [0]}
    index = torch.tensor([[0]])
    by_index = visual_prompt(network, images, labels, index, ties="index", **settings).mapping[0].tolist()
    at_random = visual_prompt(network, images, labels, index, **settings).mapping[0].tolist()
    assert at_random[0] == by_index[0]
    assert by_index[1:] == [s for s in range(7) if s != by_index[0]][:2]
    assert at_random[1:] != by_index[1:]


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt": "pads"}, "unknown prompt 'pads'; did you mean 'pad'"),
    ({"mapping": "blm++"}, r"unknown mapping 'blm\+\+'; did you mean 'blm\+'"),
    ({"ties": "first"}, "unknown ties 'first'; There are: index, random"),
    ({"prompt": "frame"}, "`images` must have a side of 16 px for the prompt 'frame', got 8"),
    ({"image_px": 10}, "`images` must have a side of 10 px for the prompt 'pad', got 8"),
    ({"targets": 8}, "as many source classes as the task has classes, 8; the network has 7"),
])  # fmt: skip
def test_wrong_settings(network: Frozen, wrong: dict, message: str) -> None:
    images, labels = task()
    with pytest.raises(InputError, match=message):
        visual_prompt(network, images, labels, torch.arange(24)[None], batch=8, seeds=[0], **{**SETTINGS, **wrong})


def test_a_diverging_prompt_is_an_error(network: Frozen) -> None:
    images, labels = task()
    broken = copy.deepcopy(network)
    broken.head.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="loss must be a finite number, got nan in epoch 1 of visual prompting"):
        visual_prompt(broken, images, labels, torch.arange(24)[None], batch=128, seeds=[0], **SETTINGS)
