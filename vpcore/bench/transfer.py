"""Bench of the transfer: steps and jobs of visual prompting and linear probing, against the floor and the naive way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from vpcore.bench import plain_protocol
from vpcore.bench.floor import Bare, best_precision, launches
from vpcore.bench.timing import CLASSES, Longer, Row, Setting, compared, medians
from vpcore.data.images import Images
from vpcore.networks.backbones import PRECISIONS, head_name
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import predict
from vpcore.networks.watching import operations
from vpcore.probing.linear_probing import probe_features
from vpcore.prompting.fixed_prompts import PadPrompt
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.visual_prompting import Prompted, visual_prompt

TARGETS = 10  # classes of the task: CIFAR-10
SHOTS, TRAIN, TEST = 100, 50_000, 10_000  # images of a 10-shot budget, of the whole training set, of the test set
EPOCHS, BATCH = 100, 128  # of the paper's recipe
STEPS = {"cpu": (1, 4), "cuda": (6, 26)}  # epochs of a short and a long training
MEASURED = 256  # images of a pass that is extrapolated to more
COHORT = 15
TOGETHER = {"cpu": 2, "cuda": 30}  # epochs of a cohort that is compared with its members: on a GPU its steps are recorded
COHORTS = {"cuda": ((1, SHOTS), (5, SHOTS), (15, TARGETS))}  # device type -> prompts, and images of each, of a step
GROWTH = {"images": (10, 30, 90), "prompts": (1, 3, 9), "classes": (10, 30, 90)}


def prompted(
    setting: Setting, network: Frozen, *, count: int, epochs: int, members: int = 1, targets: int = TARGETS, px: int = 0,
    mapping: str = "ilm",
) -> Prompted:  # fmt: skip
    """A cohort of visual prompts that learns from noise."""
    classes = tuple(str(number) for number in range(targets))
    noise = Images(setting.images(count, px or setting.image_px), torch.arange(count) % targets, classes)
    return visual_prompt(
        network, noise, canvas=setting.canvas, mapping=mapping, epochs=epochs, batch=BATCH, seeds=range(members)
    )


def _steps(setting: Setting, precision: str, **asked: Any) -> Longer:
    """Times the steps of training a prompt, one an epoch."""
    network = setting.frozen(precision)
    return Longer(setting, lambda epochs: prompted(setting, network, epochs=epochs, **asked), *STEPS[setting.device.type])


def floor(setting: Setting) -> Iterator[Row]:
    """The bare pass, and the product of large matrices: what the machine can do."""
    count, size = SHOTS, 4096
    precision, layout, rows = best_precision(setting, count)
    bare = Bare(setting, precision, layout, count)
    forward, both = (operations(call)["Global"] for call in (bare.forward, bare.step))
    ways = launches(bare.step, bare.network, setting.device, compiled=True)
    if way := ways.get("compiled"):
        what = f"forward and input gradient, {count} images, {precision}/{layout}/compiled"
        rows = [*rows, Row("floor", what, medians(setting, {"": way})[""])]
    for row in rows:
        rate = "" if row.seconds is None else f"{count / row.seconds:.0f} images/s"
        yield dataclasses.replace(row, flops=both, note=rate)
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(setting.device, PRECISIONS[precision])
    found = medians(setting, {"forward": bare.forward, "product": lambda: a @ a})
    what, note = f"forward, {count} images, {precision}/{layout}", f"{count / found['forward']:.0f} images/s"
    yield Row("floor", what, found["forward"], note=note, flops=forward)
    what = f"product of {size} x {size} matrices, {precision}"
    yield Row("floor", what, found["product"], note="what the machine can do", flops=2 * size**3)


def step(setting: Setting) -> Iterator[Row]:
    """A step of visual prompting against the floor, for as many images: images that are computed apart from the border, and
    images too large for that; on a GPU also several prompts together."""
    precision, layout, _ = best_precision(setting, SHOTS)
    for members, count in COHORTS.get(setting.device.type, ((1, SHOTS),)):
        bare = Bare(setting, precision, layout, members * count)
        sides = (setting.image_px, 4 * setting.image_px) if members == 1 else (setting.image_px,)
        sizes = {px: _steps(setting, precision, count=count, members=members, px=px) for px in sides}
        ways = launches(bare.step, bare.network, setting.device, compiled=True)
        floors = {launch: partial(_three_times, way) for launch, way in ways.items()}
        found = medians(setting, {**floors, **{str(px): steps for px, steps in sizes.items()}})
        launch = min(floors, key=found.__getitem__)
        images = f"{count} images" if members == 1 else f"{members} x {count} images"
        against = f"floor ({layout}{'' if launch == 'eager' else f', {launch}'})"
        for px, steps in sizes.items():
            what = f"prompt step, {images} of {px} px, {precision}"
            label = f"step, {images.removeprefix(f'{SHOTS} ')} of {px} px: floor"
            yield Row("step", what, steps.seconds, against, found[launch] / 3, label=label)


def _three_times(function: Callable[[], object]) -> None:
    for _ in range(3):
        function()


def growth(setting: Setting) -> Iterator[Row]:
    """How the time of a step grows with what there is more of: images, prompts at once, target classes, pixels."""
    precision, _, _ = best_precision(setting, SHOTS)
    sizes = tuple(setting.canvas * part // 4 for part in (2, 3, 4))
    for axis, values in {**GROWTH, "canvas": sizes}.items():
        cases: dict[str, Longer] = {}
        for value in values:
            here = dataclasses.replace(setting, canvas=value) if axis == "canvas" else setting
            asked = {"count": {"images": value, "classes": 90}.get(axis, 10)}
            asked |= {"prompts": {"members": value}, "classes": {"targets": value}}.get(axis, {})
            cases[f"{axis}: {value}"] = _steps(here, precision, **asked)
        medians(setting, cases)
        for what, steps in cases.items():
            yield Row("growth", what, steps.seconds, note=f"a step of {precision}")


def prompt(setting: Setting) -> Iterator[Row]:
    """A job of ILM-VP, 10-shot CIFAR-10, against the naive way."""
    precision, _, _ = best_precision(setting, SHOTS)
    frozen, model = setting.frozen(precision), setting.network().to(setting.device)
    train, test = ((setting.images(n, setting.image_px), torch.arange(n) % TARGETS) for n in (SHOTS, MEASURED))
    learned = prompted(setting, frozen, count=SHOTS, epochs=1)

    def naively(epochs: int, tested: plain_protocol.Labelled | None = None) -> None:
        border = PadPrompt(1, canvas=setting.canvas, image_px=setting.image_px).to(setting.device)
        plain_protocol.visual_prompt(
            plain_protocol.on_pixels(model), border, MAPPINGS["ilm"], train, targets=TARGETS, sources=CLASSES,
            epochs=epochs, batch=BATCH, lr=0.01, seed=0,
            after_epoch=lambda state: tested and state.accuracy(tested, state.mapping),
        )  # fmt: skip

    functions: dict[str, Callable[[], object]] = {
        "1": partial(prompted, setting, frozen, count=SHOTS, epochs=1),
        "3": partial(prompted, setting, frozen, count=SHOTS, epochs=3),
        "test": partial(learned, test[0]),
        "naive 1": partial(naively, 1),
        "naive 2": partial(naively, 2),
        "naive 1, tested": partial(naively, 1, test),
    }
    t, more = medians(setting, functions), TEST / MEASURED
    ours = t["1"] + (EPOCHS - 1) * (t["3"] - t["1"]) / 2 + t["test"] * more
    epoch, test_pass = t["naive 2"] - t["naive 1"], (t["naive 1, tested"] - t["naive 1"]) * more
    job = f"job: {SHOTS} images, {EPOCHS} epochs, {TEST:,} test images, {precision}"
    note = f"extrapolated from 1 to 3 epochs and {MEASURED} test images"
    yield Row("prompt", job, ours, "naive, tested once", EPOCHS * epoch + test_pass, note, "prompt: naive, tested once")
    yield Row("prompt", job, ours, "naive, tested in every epoch", EPOCHS * (epoch + test_pass), note, "prompt: naive")


def probe(setting: Setting) -> Iterator[Row]:
    """A job of linear probing, with 10 shots and with all images, against the naive way."""
    precision, _, _ = best_precision(setting, SHOTS)
    frozen, plain = setting.frozen(precision), setting.network().to(setting.device)
    plain.set_submodule(head_name(plain), nn.Identity())
    shown, few = setting.images(MEASURED, setting.canvas), MEASURED
    width = frozen.features(shown[:1].to(setting.device).float() / 255).shape[1]
    for count, name in ((SHOTS, "10-shot"), (TRAIN, "all images")):
        features = torch.randn(count, width, generator=torch.Generator().manual_seed(0)).to(setting.device)
        labels, epochs = torch.arange(count) % TARGETS, EPOCHS if count == SHOTS else 2
        recipe: dict[str, Any] = {"targets": TARGETS, "epochs": epochs, "batch": BATCH, "lr": 0.01}
        functions: dict[str, Callable[[], object]] = {
            "features": partial(predict, frozen.features, shown, device=setting.device),
            "naive features": partial(plain_protocol.features, plain, shown),
            "head": partial(probe_features, features, labels, torch.arange(count)[None], **recipe, seeds=[0]),
            "naive head": partial(plain_protocol.linear_head, features, labels, **recipe, seed=0),
        }
        t, images = medians(setting, functions), count + TEST
        each, naive_each = t["features"] / few, t["naive features"] / few
        head, naive_head = (t[name] * EPOCHS / epochs for name in ("head", "naive head"))
        job = f"job: {count:,} images ({name}), {EPOCHS} epochs, {TEST:,} test images, {precision}"
        note = f"extrapolated from {few} images" + ("" if epochs == EPOCHS else f" and {epochs} epochs")
        for against, passes, label in (
            ("naive, features computed once", 1, "naive, features once"),
            ("naive, features and test in every epoch", EPOCHS, "naive"),
        ):
            other = passes * naive_each * images + naive_head
            yield Row("probe", job, each * images + head, against, other, note, f"probe, {name}: {label}")


def cohort(setting: Setting) -> Iterator[Row]:
    """Few-shot prompts learned in one pass, against one at a time."""
    precision, _, _ = best_precision(setting, SHOTS)
    learn = partial(prompted, setting, setting.frozen(precision), count=TARGETS, epochs=TOGETHER[setting.device.type])

    def alone() -> None:
        for _ in range(COHORT):
            learn()

    what, label = f"{COHORT} prompts of {TARGETS} images together, {precision}", f"{COHORT} prompts: one at a time"
    yield from compared(
        setting, Row("cohort", what, against="one at a time", label=label), partial(learn, members=COHORT), alone
    )
