"""The command that prompts a network of your own to read images of your own: `vpcore prompt`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from safetensors.torch import save

from vpcore.calibration.predictions import Predictions
from vpcore.commands.options import data_option, device_option, lines_of, output_option, warn_of_emulation
from vpcore.commands.own_network import network_options
from vpcore.data.class_folders import holds_class_folders, image_folder, split_folders
from vpcore.data.images import Images
from vpcore.data.splits import saturated, shots
from vpcore.data.tasks import load
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.networks.backbones import PRECISIONS
from vpcore.networks.frozen import Frozen
from vpcore.prompting.label_mapping import MAPPINGS, mapping_named
from vpcore.prompting.prompts import PROMPTS, input_px
from vpcore.prompting.visual_prompting import visual_prompt
from vpcore.study.execution import device_named
from vpcore.weights.named import trained_network


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
    if not all(holds_class_folders(folder / name) for name in ("train", "test")):
        given = " and ".join(split_folders(folder))
        hint = (
            f"it holds {given}; rename the folder of the images to measure on to test"
            if given
            else f"where there is one for all images, use: vpcore pack {folder} --data DIR, and the set's name"
        )
        raise InputError(f"{folder} must hold train and test with a folder for each class; {hint}")
    train = image_folder(folder / "train", px=px)
    return train, image_folder(folder / "test", px=px, classes=train.classes)


@click.command()
@network_options
@click.argument("images")
@data_option
@click.option("--canvas", default=224, show_default=True, help="Side of what the network sees, px.")
@click.option("--px", "image_px", default=128, show_default=True, help="Side of the image within the border, px.")
@click.option("--prompt", "kind", default="pad", show_default=True, help=f"One of {', '.join(PROMPTS)}.")
@click.option("--mapping", default="ilm", show_default=True, help=f"One of {', '.join(MAPPINGS)}.")
@click.option("--budget", type=int, help="Images a class to learn from.  [default: all]")
@click.option("--epochs", default=100, show_default=True, help="Passes over them.")
@click.option("--lr", default=0.01, show_default=True, help="Learning rate of Adam.")
@click.option("--seed", default=0, show_default=True, help="Of the draw of images, their order and all else that is random.")
@click.option("--head", help="Name of the classifier of NETWORK.  [default: its last linear layer]")
@click.option("--precision", default="float32", show_default=True, help=f"One of {', '.join(PRECISIONS)}.")
@device_option
@output_option(".safetensors", "File that gets the logits of the test images, the prompt and the mapping.")
def prompt(
    network: str, weights: Path | None, classes: int, images: str, data: Path | None, canvas: int, image_px: int, kind: str,
    mapping: str, budget: int | None, epochs: int, lr: float, seed: int, head: str | None, precision: str, device: str,
    output: Path | None,
) -> None:  # fmt: skip
    """Prompt a network of your own to read images of your own.

    NETWORK is a name of torchvision's or timm's, or MODULE:FACTORY, a function that returns it. IMAGES is a folder that
    holds train and test with a folder of images for each class, or the name of an image set. Images are resized to the side
    that the prompt wants, whatever their shape, and normalised as a network of timm says, any other as for ImageNet.

    \b
    vpcore prompt resnet50 photos --weights resnet50.pth --output learned.safetensors
    vpcore calibrate learned.safetensors                                         all metrics of the test images
    vpcore prompt resnet50 photos --weights ticket.safetensors --budget 10       after vpcore prune
    vpcore prompt my_networks:trained digits --canvas 64 --px 32
    """
    where, rule, px = device_named(device), mapping_named(mapping), input_px(kind, canvas=canvas, image_px=image_px)
    warn_of_emulation(where, [precision])
    train, test = read_images(images, px=px, data=data)
    model, _ = trained_network(network, weights=weights, classes=classes)
    frozen = Frozen(model, precision=precision, device=where, head=head)
    rows = shots(train.labels, budget, task=Path(images).name, seed=seed)[None]
    click.echo(f"learning from {rows.shape[1]} images of {len(train.classes)} classes at {px} of {canvas} px, on {where}")
    if saturated(train.labels, budget):
        click.echo(f"note: some classes have fewer than {budget} images, and give all that they have")
    learned = visual_prompt(
        frozen, train, canvas=canvas, image_px=image_px, index=rows, prompt=kind, mapping=rule, epochs=epochs, lr=lr,
        seeds=[seed],
    )  # fmt: skip
    logits = learned(test.images)[0]
    click.echo(f"measured on {len(test)} images; in brackets: 95 % bootstrap intervals over them")
    for line in lines_of(Predictions.from_logits(logits, test.labels), ("accuracy", "ece", "nll")):
        click.echo(line)
    if output is not None:
        tensors = {"logits": logits, "labels": test.labels, **learned.prompt.state_dict(), "mapping": learned.mapping}
        facts = {"network": network, "canvas": canvas, "image_px": image_px, "prompt": kind, "mapping": mapping}
        metadata = {"classes": json.dumps(train.classes), "facts": json.dumps(facts)}
        content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata=metadata)
        write_atomically(output, content)
        click.echo(f"wrote {output}; next: vpcore calibrate {output}")
