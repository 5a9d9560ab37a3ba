"""An audit from its options to all of its numbers: read the networks, choose the design, measure, judge.

Nothing is chosen by test images, and nothing depends on the time but the design: with the tasks, budgets and seeds that an
audit names, the same numbers come out again.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vpcore.audit.design import Design, Speed, choose, half_width, measured_speed, seconds_of
from vpcore.audit.findings import METHODS, Findings, judge, own_costs, worst
from vpcore.audit.measuring import Row, measure, own_task, source_classes
from vpcore.audit.networks import Audited, compared, read_network
from vpcore.audit.tasks import DEFAULT_TASKS, Task, read_task
from vpcore.calibration.predictions import Predictions
from vpcore.checks import share, whole_number
from vpcore.errors import InputError
from vpcore.networks.backbones import Statistics
from vpcore.prompting.visual_prompting import IMAGE_SHARE
from vpcore.report.verdicts import MARGIN, Estimate
from vpcore.study.execution import device_named
from vpcore.study.provenance import provenance

BUDGET = "10 min"
SHOTS = (1, 4, 16)
OWN_IMAGES = 2000  # test images of the own task, about
PERMUTED = 0.1  # of the images: networks that agree on fewer, though probes of them do not differ, name classes differently


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


@dataclass(frozen=True)
class Audit:
    """All that an audit found.

    Attributes:
        options: what was asked.
        design: what was measured.
        networks: the dense one first.
        rows: see `measure`.
        findings: of each compressed network.
        own: of each compressed network on the own task; empty where none is named.
        warnings: what whoever reads the page must know.
        not_measured: what was not measured, and why.
        timing: seconds and images a second; all that differs from one time to the next.
        made: where and by which code.
    """

    options: Options
    design: Design
    networks: tuple[Audited, ...]
    rows: tuple[Row, ...]
    findings: tuple[Findings, ...]
    own: tuple[dict[str, Estimate], ...]
    warnings: tuple[str, ...]
    not_measured: tuple[str, ...]
    timing: dict[str, float | list[float]]
    made: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The verdict on all compressed networks."""
        return worst([each.verdict for each in self.findings])


def audit(options: Options, *, log: Callable[[str], None] = lambda text: None) -> Audit:
    """Do an audit.

    Args:
        options: what is asked.
        log: is told what is going on, a line at a time.

    Raises:
        InputError: for what is wrong with a network, a task or an option, before anything is measured if possible.
    """
    start = time.perf_counter()
    share(options.margin, name="margin")
    limit, shots = seconds_of(options.budget), _shots(options.shots)
    networks = _networks(options)
    tasks = [
        read_task(name, data=options.data, shots=shots[-1], test_images=options.test_images)
        for name in dict.fromkeys(options.tasks or DEFAULT_TASKS)
    ]
    own = read_task(options.own_task, data=options.data, shots=1, test_images=OWN_IMAGES) if options.own_task else None
    log(f"{len(networks)} networks and {len(tasks)} tasks; looking how fast they are")
    design, speeds, lacks = _design(options, networks, tasks, limit - (time.perf_counter() - start))
    log(
        f"measuring {', '.join(design.tasks)} with {', '.join(map(str, design.shots))} images a class, "
        f"seeds {', '.join(map(str, design.seeds))}, by {' and '.join(METHODS[method] for method in design.methods)}"
    )
    chosen = [task for task in tasks if task.name in design.tasks]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = [row for task in chosen for row in measure(networks, task, design, log=log)]
        of_own = _own(networks, own, design.canvas) if own else ()
    findings = tuple(judge(rows, number, margin=options.margin) for number in range(1, len(networks)))
    notes = [f"{each.name}: {note}" for each in networks for note in each.notes]
    notes += _notes(networks, chosen, design, findings, rows) + list(dict.fromkeys(str(each.message) for each in caught))
    if own is None:
        lacks.append("the networks' own task, since its images were not named (--own-task)")
    lacks += _not_measured(networks, chosen, findings)
    timing: dict[str, float | list[float]] = {
        "images_a_second": [1 / speed.looked for speed in speeds],
        "seconds": time.perf_counter() - start,
    }
    made = provenance(networks[0].frozen.device)
    return Audit(options, design, networks, tuple(rows), findings, of_own, tuple(notes), tuple(lacks), timing, made)


def _shots(shots: tuple[int, ...]) -> tuple[int, ...]:
    if not shots:
        raise InputError("`shots` must hold a number of images a class, at least one; use (1, 4)")
    return tuple(sorted({whole_number(each, name="shots", of="images a class") for each in shots}))


def _networks(options: Options) -> tuple[Audited, ...]:
    if not options.compressed:
        raise InputError("`compressed` must name a compressed network, at least one")
    where = device_named(options.device)
    canvas = whole_number(options.canvas, name="canvas", least=8)

    dense = read_network(options.dense, canvas=canvas, model=options.model, device=where, statistics=options.statistics)
    model, statistics = options.model or dense.model, dense.frozen.statistics  # what was made of it takes what it takes
    others = [
        read_network(name, canvas=canvas, model=model, device=where, statistics=statistics) for name in options.compressed
    ]
    return dense, *(compared(dense, other) for other in others)


def _design(
    options: Options, networks: tuple[Audited, ...], tasks: list[Task], limit: float
) -> tuple[Design, list[Speed], list[str]]:
    """The design, how fast the networks are, and what the design leaves out."""
    image_px = round(IMAGE_SHARE * options.canvas) if options.image_px is None else options.image_px
    seeds = tuple(range(1 if options.seeds is None else whole_number(options.seeds, name="seeds")))
    methods = ("lp",) if all(network.no_gradients for network in networks) else tuple(METHODS)
    largest = Design(
        tuple(task.name for task in tasks), _shots(options.shots), seeds, methods, options.canvas,
        whole_number(image_px, name="image_px"), whole_number(options.epochs, name="epochs"), options.lr,
        whole_number(options.test_images, name="test_images"),
    )  # fmt: skip
    speeds = [measured_speed(network, options.canvas, image_px) for network in networks]
    classes = [len(task.classes) for task in tasks]
    design = choose(largest, speeds, classes, limit=limit) if options.seeds is None else largest
    lacks = [f"the task {name}, for which there was no time" for name in largest.tasks if name not in design.tasks]
    lacks += [f"{shots} images a class, for which there was no time" for shots in largest.shots if shots not in design.shots]
    lacks += [f"{METHODS[m]}, for which there was no time" for m in largest.methods if m not in design.methods]
    return design, speeds, lacks


def _own(networks: tuple[Audited, ...], task: Task, canvas: int) -> tuple[dict[str, Estimate], ...]:
    seen = []
    for network in networks:
        predictions = Predictions.from_logits(*own_task(network, task, canvas))
        seen.append({"right": predictions.right.numpy(), "confidence": predictions.confidence.numpy()})
    return tuple(own_costs(seen[0], other) for other in seen[1:])


def _notes(
    networks: tuple[Audited, ...], tasks: list[Task], design: Design, findings: tuple[Findings, ...], rows: list[Row]
) -> list[str]:
    """What is odd about the tasks, and about classes in another order."""
    notes = []
    for task in tasks:
        counts = torch.bincount(task.read("train", design.image_px).labels, minlength=len(task.classes))
        if int(counts.min()) < design.shots[-1]:
            notes.append(f"{task.name}: some classes have fewer than {design.shots[-1]} images, and give all that they have")
    seen = [source_classes(network, tasks[0], design.canvas) for network in networks]
    for number, found in enumerate(findings, start=1):
        alike = float((seen[0] == seen[number]).float().mean())
        probe = found.primary.get(("accuracy_loss", "lp"))
        if alike < PERMUTED and probe is not None and abs(probe.estimate.mean) < 0.05:
            notes.append(
                f"{networks[number].name}: it calls {alike:.0%} of the images what the dense network calls them, though "
                "probes read both about as well; are its classes in another order?"
            )
    return notes


def _not_measured(networks: tuple[Audited, ...], tasks: list[Task], findings: tuple[Findings, ...]) -> list[str]:
    lacks = [
        f"visual prompting of {network.name}, since no gradient passes from its outputs to its inputs "
        f"({network.no_gradients}); probing and calibration need none"
        for network in networks
        if network.no_gradients
    ]
    sources = networks[0].frozen.classes
    lacks += [
        f"visual prompting on {task.name}, which has {len(task.classes)} classes and the networks only {sources}"
        for task in tasks
        if len(task.classes) > sources
    ]
    for method in METHODS:
        if names := sorted({name for found in findings for name in found.left_out.get(method, [])}):
            lacks.append(
                f"a cost in {METHODS[method]} on {', '.join(names)}: the dense network is near chance there, by validation "
                "images, and has nothing to lose"
            )
    lacks += [
        f"calibration after temperature scaling, and conformal sets, on {task.name}, which has no validation images"
        for task in tasks
        if not len(task.read("val", 8))
    ]
    return lacks


def expected(design: Design) -> float:
    """Half the width that the interval of the first primary contrast was expected to have; infinity without one."""
    return half_width(design.methods[0], tasks=len(design.tasks), shots=len(design.shots), seeds=len(design.seeds))
