"""Jobs: what is missing of a study, cut into what is computed in one go.

A job is a ticket with its measurement on the source task, the same measurement of a quantized network, or a cohort of
transfers that differ in their seed alone, on a GPU perhaps in their task, too (see `adaptation`). A block is a ticket with
all jobs on it: done one after the other by one process, they need the network to be loaded once. Tickets are made from each
other, so that blocks form a graph, and their order is a topological one. What has a record is no longer part of a job: that
is all that resuming needs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from vpcore.study.headers import parents
from vpcore.study.run import DEFAULTS, QUANTIZED, Run, fields_of, run_id, ticket_run
from vpcore.study.store import Store

# fields that the description of a job names where they differ from the default
VARIANTS = ("prompt", "mapping", "ties", "last_mapping", "selection", "probe", "view")


@dataclass(frozen=True)
class Job:
    """Runs that are computed together: one on the source task, with the making of its ticket, or a cohort of transfers."""

    runs: tuple[Run, ...]

    @property
    def kind(self) -> str:
        """Jobs of one kind take comparable times for their size."""
        return "ticket" if self.is_ticket else self.runs[0].method

    @functools.cached_property
    def is_ticket(self) -> bool:
        """Whether it makes a ticket, if there is none yet."""
        return self.runs[0] == ticket_run(self.runs[0])

    @property
    def chain(self) -> int:
        """The seed of the dense network that its own descends from, which `--chain` names."""
        return self.runs[0].source_seed

    @functools.cached_property
    def needs(self) -> tuple[Run, ...]:
        """The tickets that must exist before."""
        run = self.runs[0]
        return parents(run) if self.is_ticket else (ticket_run(run),)

    @functools.cached_property
    def affinity(self) -> tuple[object, ...]:
        """What it shares with jobs that are best done by the same process: network, method and task."""
        run = self.runs[0]
        return ticket_run(run), *(getattr(run, name) for name in fields_of(QUANTIZED)), run.method, run.task

    def __str__(self) -> str:
        run = self.runs[0]
        network = f"round {run.round}"
        if run.round and run.sparsifier != "imp":
            network += f" of {run.sparsifier}"
        if run.quantized:
            network += f" at {run.weight_bits}/{run.activation_bits} bits"
        if run.quant_training != "none":
            network += f", trained on ({run.quant_training})"
        if self.is_ticket:
            return f"ticket of {network} ({run.density:.1%} of the weights) on {run.source}"
        if run.method == "source":
            return f"{network} on {run.source}"
        variants = [getattr(run, name) for name in VARIANTS if getattr(run, name) != DEFAULTS[name]]
        shots = "all images" if run.budget is None else f"{run.budget}-shot"
        tasks, seeds = (list(dict.fromkeys(getattr(run, name) for run in self.runs)) for name in ("task", "seed"))
        task = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        told = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        return f"{' '.join([run.method, *variants])} {task} {shots}, {network}, {told}"


@dataclass(frozen=True)
class Block:
    """A ticket and what is missing of the runs on it.

    Attributes:
        ticket: the run that makes the ticket.
        jobs: in the order in which they are best done; the one that makes the ticket, if it has to be made, is the first.
    """

    ticket: Run
    jobs: tuple[Job, ...]


def blocks(runs: Iterable[Run], store: Store, *, across_tasks: bool = False) -> list[Block]:
    """What is missing for these runs; a block comes after those that make the tickets which its own is made from.

    `across_tasks`: a cohort may have several tasks. Runs that failed before are then tried without those of other tasks.
    """
    done = store.done()
    missing: dict[Run, list[Run]] = {}
    for run in runs:
        if run_id(run) not in done:
            missing.setdefault(ticket_run(run), []).append(run)
    place = {seed: number for number, seed in enumerate(dict.fromkeys(ticket.source_seed for ticket in missing))}
    tickets = sorted(missing, key=lambda ticket: place[ticket.source_seed])  # whole chains before others
    ordered = [
        Block(ticket, tuple(_jobs_on(ticket, missing.get(ticket, []), store, across_tasks=across_tasks)))
        for ticket in _sorted(tickets, store)
    ]
    return [block for block in ordered if block.jobs]


def jobs(runs: Iterable[Run], store: Store, *, across_tasks: bool = False) -> list[Job]:
    """The jobs of all blocks, in their order."""
    return [job for block in blocks(runs, store, across_tasks=across_tasks) for job in block.jobs]


def _jobs_on(ticket: Run, runs: list[Run], store: Store, *, across_tasks: bool) -> Iterator[Job]:
    """The jobs on one ticket, sorted so that a quantized network, too, is made once."""
    if ticket in runs or not store.ticket_path(ticket).exists():
        yield Job((ticket,))
    cohorts: dict[Run, list[Run]] = {}
    for run in runs:
        if run != ticket:
            apart = not across_tasks or store.failure_path(run).exists()
            cohorts.setdefault(_alike(run, across_tasks=not apart), []).append(run)
    yield from (Job(tuple(cohorts[first])) for first in sorted(cohorts, key=_order))


def _alike(run: Run, *, across_tasks: bool) -> Run:
    """What the members of a cohort have in common."""
    stacked = across_tasks and run.method in ("vp", "lp") and run.probe == "adam" and run.selection == "last"
    return dataclasses.replace(run, seed=0, task=run.source if stacked else run.task)


def _order(run: Run) -> tuple[Any, ...]:
    network = (-run.weight_bits, -run.activation_bits, run.quant_range, run.batch_norm)
    return (*network, run.method != "source", run.method, run.view, run.task, run.budget or 10**9, run.prompt, run.mapping)


def _sorted(tickets: Iterable[Run], store: Store) -> Iterator[Run]:
    """The tickets and the lost ones that they are made from, parents first; a chain is followed before the next begins."""
    graph: dict[Run, tuple[Run, ...]] = {}
    rest = [*tickets][::-1]
    while rest:
        if (ticket := rest.pop()) not in graph:
            graph[ticket] = () if store.ticket_path(ticket).exists() else parents(ticket)
            rest += graph[ticket]
    order = TopologicalSorter(graph)
    order.prepare()
    ready = [*order.get_ready()][::-1]
    while ready:  # the newest first, unlike `static_order`, which would go through all chains round by round
        yield (ticket := ready.pop())
        order.done(ticket)
        ready += reversed(order.get_ready())
