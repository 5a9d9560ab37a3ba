"""What is asked of an audit, and what the options name: its networks and its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpcore.audit.networks import Audited, compared, read_network
from vpcore.audit.tasks import DEFAULT_TASKS, Task, read_task
from vpcore.checks import SIDE, whole_number
from vpcore.errors import InputError
from vpcore.networks.backbones import Statistics
from vpcore.report.verdicts import MARGIN
from vpcore.study.execution import device_named

BUDGET = "10 min"
SHOTS = (1, 4, 16)


@dataclass(frozen=True)
class Options:
    """What is asked of an audit; the options of `vpcore audit` and the parameters of its notebook.

    Attributes:
        dense, compressed: the networks, see `networks`.
        model: the network that files of weights alone are read into; "" for that of the dense network.
        tasks: names of image sets, or folders of images, the most important first; () for the built-in ones.
        data: folder of image sets.
        budget: the time to spend, such as "10 min", where the number of seeds is left open.
        shots: images a class, the smallest first.
        seeds: how many; None: as many as fit.
        margin: the largest cost that is too small to matter, of accuracy and of the ECE.
        own_task: the image set that the networks were trained on; "" for none.
        canvas: side of what the networks see, px.
        image_px: side of the image within the border of a prompt, px; None for 4/7 of the canvas.
        epochs, lr: of the prompts; the defaults are those of the profile `mini`.
        test_images: of each task, about.
        device: "auto", "cpu" or "cuda".
        scheduler: address of a Dask scheduler whose workers measure; "" for this process.
        statistics: mean and standard deviation that inputs are normalised with; None: as the networks say.
    """

    dense: str
    compressed: tuple[str, ...]
    model: str = ""
    tasks: tuple[str, ...] = ()
    data: Path | None = None
    budget: str = BUDGET
    shots: tuple[int, ...] = SHOTS
    seeds: int | None = None
    margin: float = MARGIN
    own_task: str = ""
    canvas: int = 128
    image_px: int | None = None
    epochs: int = 30
    lr: float = 0.1
    test_images: int = 300
    device: str = "auto"
    scheduler: str = ""
    statistics: Statistics | None = None


def options_of(namespace: Mapping[str, Any], *, data: Path | None) -> Options:
    """The options that a notebook names, as its parameters have them: "" and 0 are what is not given.

    >>> options_of({"dense": "a", "compressed": ["b"], "seeds": 0, "lr": 0.1}, data=None).seeds is None
    True
    """
    given = {each.name: namespace[each.name] for each in dataclasses.fields(Options) if each.name in namespace}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    given |= {name: given[name] or None for name in ("seeds", "image_px") if name in given}
    return Options(**given | {"data": data})


def networks_of(options: Options) -> tuple[Audited, ...]:
    """The networks, the dense one first; the others are read as it is.

    Raises:
        InputError: when none is compressed; as `read_network` and `compared`.
    """
    if not options.compressed:
        raise InputError("`compressed` must name a compressed network, at least one")
    where, canvas = device_named(options.device), whole_number(options.canvas, name="canvas", least=8, most=SIDE)
    dense = read_network(options.dense, canvas=canvas, model=options.model, device=where, statistics=options.statistics)
    model, statistics = options.model or dense.model, dense.frozen.statistics  # what was made of it takes what it takes
    return dense, *(
        compared(dense, read_network(name, canvas=canvas, model=model, device=where, statistics=statistics))
        for name in options.compressed
    )


def tasks_of(options: Options) -> tuple[Task, ...]:
    """The tasks, in their order.

    Raises:
        InputError: when two are called the same; as `read_task` and `shots_of`.
    """
    most, names = shots_of(options)[-1], dict.fromkeys(options.tasks or DEFAULT_TASKS)
    tasks = tuple(read_task(name, data=options.data, shots=most, test_images=options.test_images) for name in names)
    if len({task.name for task in tasks}) < len(tasks):
        raise InputError(
            f"`tasks` must differ in their names, those of folders too, got {', '.join(names)}; rename a folder"
        )
    return tasks


def shots_of(options: Options) -> tuple[int, ...]:
    """Images a class, the smallest first, each once.

    Raises:
        InputError: when there is none, or one is no number of images.
    """
    if not options.shots:
        raise InputError("`shots` must hold a number of images a class, at least one; use (1, 4)")
    return tuple(sorted({whole_number(each, name="shots", of="images a class") for each in options.shots}))
