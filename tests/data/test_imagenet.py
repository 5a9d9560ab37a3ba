import json
import sys
from pathlib import Path

import pytest
import torch

from vpcore import InputError
from vpcore.data.imagenet import classes, index_of, wnids

pytest.importorskip("timm")


def test_names_and_ids_are_in_the_same_order() -> None:
    """torchvision gives the names, timm the ids with descriptions of its own: each name must be in the description."""
    from timm.data import ImageNetInfo

    described = ImageNetInfo("imagenet-1k").label_descriptions()
    different = {"crane bird": "crane", "maillot tank suit": "maillot, tank suit"}  # torchvision makes the names unique
    assert len(set(classes())) == len(set(wnids())) == 1000
    for name, description in zip(classes(), described, strict=True):
        assert name.lower() in description.lower() or different[name] == description


def test_ids_are_sorted_as_imagenet_numbers_its_classes() -> None:
    """The official numbering follows the sorted ids, as torchvision.datasets.ImageFolder does."""
    assert list(wnids()) == sorted(wnids())
    assert (wnids()[0], wnids()[1], wnids()[999]) == ("n01440764", "n01443537", "n15075141")


def test_index_is_the_inverse_of_the_ids_in_the_order_given() -> None:
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:200]
    index = index_of(wnids()[number] for number in order)
    assert index.dtype == torch.int64
    assert torch.equal(index, order)
    assert index_of([]).shape == (0,)


def test_the_classes_of_tiny_imagenet_are_found(real_data: Path) -> None:
    names = json.loads((real_data / "tiny_imagenet" / "dataset.json").read_text())["classes"]
    index = index_of(names)
    assert len(set(index.tolist())) == len(names) == 200
    assert classes()[int(index[0])] == "goldfish"


def test_what_is_no_class_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"(?s)WordNet ids of ImageNet-1k .*\+ goldfish\n  \+ n00000001"):
        index_of(["n01440764", "goldfish", "n00000001"])
    wnids.cache_clear()
    monkeypatch.setitem(sys.modules, "timm.data.imagenet_info", None)
    with pytest.raises(InputError, match=r"come from timm; use: pip install 'vpcore\[imagenet\]'"):
        index_of(["n01440764"])
