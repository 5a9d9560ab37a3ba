"""The 1,000 classes of ImageNet-1k, in the order of the logits of every network that was trained on it.

A class is a synset of WordNet (Deng et al. 2009), named by an id such as n01440764, the tench. Data sets drawn from it,
Tiny-ImageNet-200 among them, name their classes by these ids, so that a 1,000-class network can be tested on them:

>>> goldfish = index_of(["n01443537"])  # the classes of a data set -> source classes; labels of images: index[labels]
>>> goldfish.tolist(), classes()[1]
([1], 'goldfish')
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from vpcore.errors import InputError, difference


def classes() -> tuple[str, ...]:
    """The English names of the 1,000 classes, all different, as torchvision gives them.

    >>> len(classes()), classes()[0]
    (1000, 'tench')
    """
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, as timm gives them.

    Raises:
        InputError: when timm is not installed.
    """
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ImportError as error:
        raise InputError("the WordNet ids of ImageNet come from timm; use: pip install 'vpcore[imagenet]'") from error
    return tuple(ImageNetInfo("imagenet-1k").label_names())


def index_of(names: Iterable[str]) -> Tensor:
    """The places of classes among the 1,000.

    Args:
        names: n WordNet ids, e.g. the classes of Tiny-ImageNet.

    Returns:
        (n,) int64 source classes, in the order given.

    Raises:
        InputError: for ids that are not in ImageNet-1k.
    """
    names, index = list(names), {name: number for number, name in enumerate(wnids())}
    if strangers := [name for name in names if name not in index]:
        raise InputError(
            "`names` must be WordNet ids of ImageNet-1k such as n01440764; these are not:\n" + difference([], strangers)
        )
    return torch.tensor([index[name] for name in names], dtype=torch.int64)
