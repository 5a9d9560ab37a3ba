"""Jobs: what is missing of a study, cut into what is computed in one go.

A job is a ticket with its measurement on the source task, the same measurement of a quantized network, or a cohort of
transfers that differ in their seed alone. Jobs follow each other so that a network is loaded once: a ticket, then all that
is measured on it, then the next. A job whose records exist is no job: that is all the resume there is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vpcore.study.headers import parents
from vpcore.study.run import DEFAULTS, QUANTIZED, Run, chain_id, fields_of, run_id, ticket_run
from vpcore.study.store import Store

VARIANTS = ("prompt", "mapping", "ties", "last_mapping", "selection", "probe", "view")  # told when they are not as usual


@dataclass(frozen=True)
class Job:
    """Runs that are computed together: one on the source task, with the making of its ticket, or a cohort of transfers."""

    runs: tuple[Run, ...]

    @property
    def kind(self) -> str:
        """What its seconds compare with."""
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
        seeds = f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"
        return f"{' '.join([run.method, *variants])} {run.task} {shots}, {network}, {seeds}"


def jobs(runs: tuple[Run, ...], store: Store) -> list[Job]:
    """What is missing for these runs, in the order in which it is best computed."""
    done = store.done()
    missing = [run for run in runs if run_id(run) not in done]
    first = {run.source_seed: number for number, run in reversed(list(enumerate(missing)))}  # whole chains before others
    place = {chain: number for number, chain in enumerate(dict.fromkeys(map(chain_id, missing)))}
    by_ticket: dict[Run, list[Run]] = {}
    for run in sorted(missing, key=lambda run: (first[run.source_seed], place[chain_id(run)], run.round)):
        by_ticket.setdefault(ticket_run(run), []).append(run)
    ordered = []
    for ticket in _with_ancestors(by_ticket, store):
        mine = by_ticket.get(ticket, [])
        if ticket in mine or not store.ticket_path(ticket).exists():
            ordered.append(Job((ticket,)))
        cohorts: dict[Run, list[Run]] = {}
        for run in mine:
            if run != ticket:
                cohorts.setdefault(dataclasses.replace(run, seed=0), []).append(run)
        ordered += [Job(tuple(cohort)) for cohort in sorted(cohorts.values(), key=lambda cohort: _order(cohort[0]))]
    return ordered


def _order(run: Run) -> tuple[Any, ...]:
    """What is measured on one ticket is sorted so that a quantized network, too, is made once."""
    network = (-run.weight_bits, -run.activation_bits, run.quant_range, run.batch_norm)
    return (*network, run.method != "source", run.method, run.view, run.task, run.budget or 10**9, run.prompt, run.mapping)


def _with_ancestors(tickets: Iterable[Run], store: Store) -> list[Run]:
    """The tickets, and those lost ones that they start from, parents first."""
    ordered: dict[Run, None] = {}

    def visit(ticket: Run) -> None:
        if not store.ticket_path(ticket).exists():
            for parent in parents(ticket):
                if not store.ticket_path(parent).exists():
                    visit(parent)
        ordered.setdefault(ticket)

    for ticket in tickets:
        visit(ticket)
    return list(ordered)
