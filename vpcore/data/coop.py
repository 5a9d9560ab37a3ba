"""The fixed splits of CoOp (Zhou et al. 2022, arXiv 2109.01134), which many prompt-learning papers share.

DIR/coop/ is laid out as DATASETS.md of github.com/KaiyangZhou/CoOp says: each set in a folder of its own, with the images
and a file split_zhou_NAME.json = {"train": [[path, label, class], ...], "val": ..., "test": ...}, the paths below the folder
of images:

    coop/ucf101/UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c01.jpg ...    the middle frame of each video
    coop/ucf101/split_zhou_UCF101.json

All three splits are CoOp's own, val included; its train and val together are usually the official training images.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from vpcore.data.decoding import opened
from vpcore.data.image_set import ImageSet
from vpcore.data.splits import SPLITS
from vpcore.errors import InputError, entry

# task -> the folder of the set, the folder of images within it, the split file
SETS: dict[str, tuple[str, str, str]] = {
    "coop-caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "coop-dtd": ("dtd", "images", "split_zhou_DescribableTextures.json"),
    "coop-eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
    "coop-flowers102": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "coop-food101": ("food-101", "images", "split_zhou_Food101.json"),
    "coop-oxford_pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json"),
    "coop-stanford_cars": ("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "coop-sun397": ("sun397", "SUN397", "split_zhou_SUN397.json"),
    "coop-ucf101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
}


def open_set(name: str, root: Path) -> ImageSet:
    """Open a set with CoOp's splits.

    Args:
        name: a key of `SETS`.
        root: the folder that holds the folders of CoOp.

    Returns:
        The set; it is known by its split file and the sizes of its images.

    Raises:
        InputError: when the split file or an image is missing, or the file is not consistent.
    """
    folder, images, file = entry("CoOp set", name, SETS)
    path = root / folder / file
    try:
        text = path.read_bytes()
        lists = json.loads(text)
        rows = {split: [(str(image), int(label), str(word)) for image, label, word in lists[split]] for split in SPLITS}
        files = {split: [root / folder / images / image for image, _, _ in part] for split, part in rows.items()}
        sizes = [file.stat().st_size for part in files.values() for file in part]
    except OSError as error:
        raise InputError(f"{name} is incomplete ({error}); {instructions(name, root)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} must hold the lists train, val and test of [path, label, class]; got {error!r}; get it again"
        ) from error
    for image, times in Counter(file for part in files.values() for file in part).most_common(1):
        if times > 1:
            raise InputError(f"{path} must list an image once; {image} is in it {times} times; get it again")
    pairs = {(label, word) for part in rows.values() for _, label, word in part}
    names = dict(pairs)
    if not names or len(pairs) != len(names) or sorted(names) != list(range(len(names))):
        raise InputError(
            f"{path} must give each label 0, 1, 2, ... one class name; got {len(names)} labels, the largest is "
            f"{max(names, default=None)}, and {len(pairs)} pairs of label and name; get it again"
        )
    return ImageSet(
        name,
        root / folder,
        tuple(names[label] for label in range(len(names))),
        {split: torch.tensor([label for _, label, _ in part], dtype=torch.int64) for split, part in rows.items()},
        lambda split, wanted: ((f"the image {files[split][n]}", partial(opened, files[split][n])) for n in wanted.tolist()),
        lambda: (text, sizes),
    )


def instructions(name: str, root: Path) -> str:
    """How to get a set, which nothing downloads by itself: its files lie on several hosts."""
    folder, images, file = SETS[name]
    return (
        f"{name} must be put together by hand: follow DATASETS.md of github.com/KaiyangZhou/CoOp, so that the images lie in "
        f"{root / folder / images} and the split is {root / folder / file}"
    )
