import copy

import pytest
import torch
from torch import nn

from vpcore import InputError
from vpcore.data.images import Images
from vpcore.networks.backbones import build, prunable
from vpcore.probing.fine_tuning import fine_tune
from vpcore.pruning.masks import apply_, full, magnitude, select


def task() -> Images:
    """Dark, middle and bright images of 16 px, and which they are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = (labels * 80 + 40)[:, None, None, None] + torch.randint(-30, 31, (60, 3, 16, 16), generator=generator)
    return Images(images.to(torch.uint8), labels, ("dark", "middle", "bright"))


SHARED = {"epochs": 4, "batch": 20, "lr": 0.05}


def test_it_learns_the_task_and_leaves_the_source_network_alone(cpu: torch.device) -> None:
    model = build("resnet8", classes=5, seed=0)
    before = copy.deepcopy(model.state_dict())
    tuned = fine_tune(model, task(), **SHARED, seeds=[0, 1], device=cpu)
    logits = tuned(task().images)
    assert logits.shape == (2, 60, 3)
    assert bool(((logits.argmax(2) == task().labels).float().mean(1) > 0.9).all())
    assert not torch.equal(logits[0], logits[1])
    assert [len(loss) for loss in tuned.loss] == [4, 4]
    alone = fine_tune(model, task(), **SHARED, index=torch.arange(60)[None], seeds=[1])
    assert torch.equal(alone(task().images)[0], logits[1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pruned_weights_stay_pruned_and_the_others_move(cpu: torch.device) -> None:
    model = build("resnet8", classes=5, seed=0)
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=0.2)
    apply_(model, masks)
    tuned = fine_tune(model, task(), masks=masks, **SHARED, device=cpu)
    weights = dict(
        tuned.networks[0].body.named_parameters()
    )  # batch norm is folded in, which scales weights but keeps zeros
    for name, mask in masks.items():
        assert not weights[name][~mask].any()
        assert not torch.equal(weights[name], dict(model.named_parameters())[name])


def test_more_images_than_a_batch_are_not_needed(cpu: torch.device) -> None:
    """At one shot there are fewer images than a batch."""
    tuned = fine_tune(build("resnet8", classes=5, seed=0), task(), index=torch.arange(3)[None], **SHARED, device=cpu)
    assert torch.isfinite(tuned(task().images)).all()


def test_the_classifier_may_be_named_or_be_a_convolution() -> None:
    """Where the last linear layer is another one, or the outputs of a convolution are averaged, as in SqueezeNet."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.embed = nn.Linear(8, 5), nn.Linear(3 * 256, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.embed(x.flatten(1))))

    squeeze = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for model, head, shape in ((Odd(), "head", (3, 8)), (squeeze, "2", (3, 6, 1, 1))):
        tuned = fine_tune(model, task(), head=head, **SHARED)
        assert tuned.networks[0].head.weight.shape == shape
        assert tuned(task().images).shape == (1, 60, 3)
        assert tuned.loss[0][-1] < tuned.loss[0][0]
    with pytest.raises(InputError, match="unknown linear layer or convolution, `head` 'tail'; There are: embed, head"):
        fine_tune(Odd(), task(), head="tail")


def test_wrong_arguments() -> None:
    model, train = build("resnet8", classes=5, seed=0), task()
    with pytest.raises(InputError, match="`train.images` must be uint8 in 0..255, got torch.float32"):
        fine_tune(model, Images(train.images / 255, train.labels, train.classes))
    with pytest.raises(InputError, match="`train.labels` must lie in 0..1, got 0..2"):
        fine_tune(model, Images(train.images, train.labels, train.classes[:2]))
    with pytest.raises(InputError, match="`seeds` must be as many as `index` has rows, 1; got 2"):
        fine_tune(model, train, index=torch.arange(3)[None], seeds=[0, 1])
