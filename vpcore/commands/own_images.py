"""The command that prompts a network of one's own to read images of one's own: `vpcore prompt`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from safetensors.torch import save

from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import interval
from vpcore.commands.options import data_option, device_option
from vpcore.commands.own_network import network_options, trained_network
from vpcore.data.class_folders import SPLIT_NAMES, holds_class_folders, image_folder
from vpcore.data.images import Images
from vpcore.data.splits import shots
from vpcore.data.tasks import load
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.networks.backbones import IMAGENET, PRECISIONS
from vpcore.networks.frozen import Frozen
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.prompts import PROMPTS, input_px
from vpcore.prompting.visual_prompting import Prompted, visual_prompt
from vpcore.study.execution import device_named


def read_images(source: str, *, px: int, data: Path | None) -> tuple[Images, Images]:
    """Training and test images.

    Args:
        source: a folder that holds the folders train and test of class folders; or the name of an image set.
        px: side of the images.
        data: the folder of image sets.

    Raises:
        InputError: for a folder without the two, or as `image_folder` and `load`.
    """
    folder = Path(source)
    if not folder.is_dir():
        return load(source, "train", px=px, folder=data), load(source, "test", px=px, folder=data)
    if missing := [name for name in ("train", "test") if not holds_class_folders(folder / name)]:
        one = [name for name in SPLIT_NAMES if (folder / name).is_dir()]
        hint = (
            "" if one else f"; where there is one for all images, use: vpcore pack {folder} --data DIR, and the set's name"
        )
        raise InputError(f"{folder} must hold train and test with a folder for each class; {missing[0]} has none{hint}")
    train = image_folder(folder / "train", px=px)
    return train, image_folder(folder / "test", px=px, classes=train.classes)


@click.command()
@network_options
@click.argument("images")
@data_option
@click.option("--canvas", default=224, show_default=True, help="Side of what the network sees, px.")
@click.option("--px", default=128, show_default=True, help="Side of the image on it, px.")
@click.option("--prompt", "kind", default="pad", show_default=True, help=f"One of {', '.join(PROMPTS)}.")
@click.option("--mapping", default="ilm", show_default=True, help=f"One of {', '.join(MAPPINGS)}.")
@click.option("--budget", type=int, help="Images a class to learn from.  [default: all]")
@click.option("--epochs", default=100, show_default=True, help="Passes over them.")
@click.option("--lr", default=0.01, show_default=True, help="Learning rate of Adam.")
@click.option("--seed", default=0, show_default=True, help="Of the images to learn from, their order and what is drawn.")
@click.option("--head", help="The classifier of NETWORK, where its last linear layer is not.")
@click.option("--precision", default="float32", show_default=True, help=f"One of {', '.join(PRECISIONS)}.")
@device_option
@click.option("--output", type=click.Path(path_type=Path), help="safetensors file that gets the prompt.")
def prompt(
    network: str,
    weights: Path | None,
    classes: int,
    images: str,
    data: Path | None,
    canvas: int,
    px: int,
    kind: str,
    mapping: str,
    budget: int | None,
    epochs: int,
    lr: float,
    seed: int,
    head: str | None,
    precision: str,
    device: str,
    output: Path | None,
) -> None:
    """Prompt a network of one's own to read images of one's own.

    NETWORK is a name of torchvision's or timm's, or MODULE:FACTORY, a function that returns it. IMAGES is a folder that
    holds train and test with a folder of images for each class, or the name of an image set. Images are normalised as a
    network of timm says, any other as for ImageNet.

    \b
    vpcore prompt resnet50 photos --weights resnet50.pth --output prompt.safetensors
    vpcore prompt resnet50 photos --weights ticket.safetensors --budget 10       after vpcore prune
    vpcore prompt my_networks:trained digits --canvas 64 --px 32
    """
    where = device_named(device)
    train, test = read_images(images, px=input_px(kind, canvas=canvas, image_px=px), data=data)
    model = trained_network(network, weights=weights, classes=classes)
    statistics = None if hasattr(model, "pretrained_cfg") else IMAGENET
    frozen = Frozen(model, precision=precision, device=where, statistics=statistics, head=head)
    rows = None if budget is None else shots(train.labels, budget, task=Path(images).name, seed=seed)[None]
    learned = visual_prompt(
        frozen,
        train,
        canvas=canvas,
        image_px=px,
        index=rows,
        prompt=kind,
        mapping=mapping,
        epochs=epochs,
        lr=lr,
        seeds=[seed],
    )
    predictions = Predictions.from_logits(learned(test.images)[0], test.labels)
    shown = len(train) if rows is None else rows.shape[1]
    click.echo(f"learned from {shown} images of {len(train.classes)} classes, measured on {len(test)}")
    found = {name: interval(predictions, METRICS[name], seed=0) for name in ("accuracy", "ece", "nll")}
    for name, one in found.items():
        click.echo(f"  {name:10} {one.value:.4f}  ({one.low:.4f} to {one.high:.4f})  {METRICS[name].label}")
    click.echo("  in brackets: 95 % bootstrap intervals over the test images")
    if output is not None:
        facts = {"network": network, "canvas": canvas, "image_px": px, "prompt": kind, "mapping": mapping, "seed": seed}
        _save(output, learned, train.classes, {**facts, **{name: one.value for name, one in found.items()}})
        click.echo(f"wrote {output}")


def _save(path: Path, learned: Prompted, classes: tuple[str, ...], facts: dict[str, object]) -> None:
    """Write a prompt: its parameters, and the mapping as `mapping`; what they are for stands in the metadata."""
    tensors = {**learned.prompt.state_dict(), "mapping": learned.mapping}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"classes": json.dumps(classes), "facts": json.dumps(facts)}
    write_atomically(path, lambda file: file.write(save(tensors, metadata=metadata)))
