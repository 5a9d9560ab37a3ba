"""An audit from its options to all of its numbers: read the networks, choose the design, measure, judge.

Nothing is chosen by test images, and nothing depends on the time but the design: with the tasks, budgets and seeds that an
audit names, the same numbers come out again.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from vpcore.audit.design import Design, choose, measured_speed, seconds_of
from vpcore.audit.findings import METHODS, NEAR_CHANCE, Findings, judge, own_costs, worst
from vpcore.audit.hands import hands
from vpcore.audit.measuring import Row, measure, own_task, source_classes
from vpcore.audit.networks import Audited
from vpcore.audit.options import Options, networks_of, shots_of, tasks_of
from vpcore.audit.tasks import Task, read_task
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import accuracy
from vpcore.checks import number, share, whole_number
from vpcore.prompting.visual_prompting import IMAGE_SHARE
from vpcore.report.verdicts import Estimate
from vpcore.study.provenance import provenance

OWN_IMAGES = 2000  # test images of the own task, about
PERMUTED = 0.1  # of the images: networks that agree on fewer, though probes of them do not differ, name classes differently


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
    end = start + seconds_of(options.budget)
    networks, tasks = networks_of(options), tasks_of(options)
    own = read_task(options.own_task, data=options.data, shots=1, test_images=OWN_IMAGES) if options.own_task else None
    largest = _largest(options, networks, tasks)
    seen = [Predictions.from_logits(*own_task(each, own, largest.canvas)) for each in networks if own]
    log(f"{len(networks)} networks and {len(tasks)} tasks; looking how fast they are")
    with warnings.catch_warnings(record=True) as caught, hands(options, networks, tasks) as (do, count):
        warnings.simplefilter("always")
        numbers = range(len(networks))
        speeds = list(do(measured_speed, [(number, largest.canvas, largest.image_px) for number in numbers]))
        limit = count * (end - time.perf_counter())
        design = choose(largest, speeds, tasks, limit=limit) if options.seeds is None else largest
        log(
            f"measuring {', '.join(design.tasks)} with {', '.join(map(str, design.shots))} images a class, "
            f"seeds {', '.join(map(str, design.seeds))}, by {' and '.join(METHODS[method] for method in design.methods)}"
        )
        rows: list[Row] = []
        for found in do(measure, itertools.product([design], range(len(design.tasks)), numbers, design.methods)):
            rows += found
            if found:
                right, what = sum(row["accuracy"] for row in found) / len(found), found[0]
                log(f"{what['task']}, {networks[what['network']].name}, {what['method']}: accuracy {right:.3f}")
    chosen = tasks[: len(design.tasks)]
    findings = tuple(judge(rows, number, margin=options.margin) for number in numbers[1:])
    notes = [f"{each.name}: {note}" for each in networks for note in each.notes]
    if own and (right := accuracy(seen[0])) < NEAR_CHANCE / len(own.classes):
        notes.append(
            f"{networks[0].name}: it reads {right:.1%} of {own.name}, its own task, which is near chance; were its weights, "
            "the order of its classes, the side of its images and their normalisation others?"
        )
    notes += _notes(networks, chosen, design, findings) + list(dict.fromkeys(str(each.message) for each in caught))
    timing: dict[str, float | list[float]] = {
        "images_a_second": [1 / speed.looked for speed in speeds],
        "seconds": time.perf_counter() - start,
    }
    lacks = (*_no_time(largest, design), *_not_measured(options, networks, chosen, findings))
    made = provenance(networks[0].frozen.device)
    of_own = tuple(own_costs(seen[0], other) for other in seen[1:])
    return Audit(options, design, networks, tuple(rows), findings, of_own, tuple(notes), lacks, timing, made)


def _largest(options: Options, networks: tuple[Audited, ...], tasks: tuple[Task, ...]) -> Design:
    """The design with all that is asked for; with one seed where their number is open."""
    image_px = round(IMAGE_SHARE * options.canvas) if options.image_px is None else options.image_px
    return Design(
        tuple(task.name for task in tasks),
        shots_of(options),
        tuple(range(1 if options.seeds is None else whole_number(options.seeds, name="seeds"))),
        ("lp",) if all(network.no_gradients for network in networks) else tuple(METHODS),
        options.canvas,
        whole_number(image_px, name="image_px"),
        whole_number(options.epochs, name="epochs"),
        number(options.lr, name="lr", use="0.1, which is usual"),
        whole_number(options.test_images, name="test_images"),
    )


def _notes(
    networks: tuple[Audited, ...], tasks: tuple[Task, ...], design: Design, findings: tuple[Findings, ...]
) -> list[str]:
    """What is odd about the tasks, and about classes in another order."""
    notes = []
    for task in tasks:
        counts = torch.bincount(task.read("train", design.image_px).labels, minlength=len(task.classes))
        if int(counts.min()) < design.shots[-1]:
            notes.append(f"{task.name}: some classes have fewer than {design.shots[-1]} images, and give all that they have")
    seen = [source_classes(network, tasks[0], design.canvas) for network in networks]
    for place, found in enumerate(findings, start=1):
        alike = float((seen[0] == seen[place]).float().mean())
        probe = found.primary.get(("accuracy_loss", "lp"))
        if alike < PERMUTED and probe is not None and abs(probe.estimate.mean) < 0.05:
            notes.append(
                f"{networks[place].name}: it calls {alike:.0%} of the images what the dense network calls them, though "
                "probes read both about as well; are its classes in another order?"
            )
    return notes


def _no_time(largest: Design, design: Design) -> Iterator[str]:
    """What was asked for and is not in the design."""
    yield from (f"the task {name}, for which there was no time" for name in largest.tasks if name not in design.tasks)
    yield from (f"{n} images a class, for which there was no time" for n in largest.shots if n not in design.shots)
    yield from (f"{METHODS[m]}, for which there was no time" for m in largest.methods if m not in design.methods)


def _not_measured(
    options: Options, networks: tuple[Audited, ...], tasks: tuple[Task, ...], findings: tuple[Findings, ...]
) -> Iterator[str]:
    """What cannot be measured, and why."""
    if not options.own_task:
        yield "the networks' own task, since its images were not named (--own-task)"
    for network in networks:
        if network.no_gradients:
            yield (
                f"visual prompting of {network.name}, since no gradient passes from its outputs to its inputs "
                f"({network.no_gradients}); probing and calibration need none"
            )
    sources = networks[0].frozen.classes
    for task in tasks:
        if len(task.classes) > sources:
            yield f"visual prompting on {task.name}, which has {len(task.classes)} classes and the networks only {sources}"
        if not len(task.read("val", 8)):
            yield f"calibration after temperature scaling and conformal sets on {task.name}, which has no validation images"
    for method, label in METHODS.items():
        if names := sorted({name for found in findings for name in found.left_out.get(method, [])}):
            yield (
                f"a cost in {label} on {', '.join(names)}: the dense network is near chance there, by validation images, "
                "and has nothing to lose"
            )
