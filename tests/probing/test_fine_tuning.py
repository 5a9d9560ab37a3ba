import copy

import torch

from vpcore.networks.backbones import build, prunable
from vpcore.networks.training import predict
from vpcore.probing.fine_tuning import fine_tune
from vpcore.pruning.masks import apply_, full, magnitude, select


def task() -> tuple[torch.Tensor, torch.Tensor]:
    """Dark, middle and bright images of 16 px, and which they are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = (labels * 80 + 40)[:, None, None, None] + torch.randint(-30, 31, (60, 3, 16, 16), generator=generator)
    return images.to(torch.uint8), labels


SHARED = {"targets": 3, "epochs": 4, "batch": 20, "lr": 0.05, "seed": 0, "precision": "float32"}


def test_it_learns_the_task_and_leaves_the_source_network_alone(cpu: torch.device) -> None:
    model = build("resnet8", classes=5, seed=0)
    before = copy.deepcopy(model.state_dict())
    tuned = fine_tune(model, {}, *task(), **SHARED, device=cpu)
    assert tuned.classes == 3
    assert (predict(tuned, task()[0], device=cpu).argmax(1) == task()[1]).float().mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pruned_weights_stay_pruned_and_the_others_move(cpu: torch.device) -> None:
    model = build("resnet8", classes=5, seed=0)
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=0.2)
    apply_(model, masks)
    tuned = fine_tune(model, masks, *task(), **SHARED, device=cpu)
    weights = dict(tuned.body.named_parameters())  # batch norm is folded in, which scales weights but keeps zeros
    for name, mask in masks.items():
        assert not weights[name][~mask].any()
        assert not torch.equal(weights[name], dict(model.named_parameters())[name])


def test_more_images_than_a_batch_are_not_needed(cpu: torch.device) -> None:
    """At one shot there are fewer images than a batch."""
    images, labels = task()
    tuned = fine_tune(build("resnet8", classes=5, seed=0), {}, images[:3], labels[:3], **SHARED, device=cpu)
    assert torch.isfinite(predict(tuned, images, device=cpu)).all()
