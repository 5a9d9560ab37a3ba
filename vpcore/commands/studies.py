"""The commands of a study: `vpcore run`, `train`, `status`, `publish`, `replay`, `compare`, `book`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from tqdm import tqdm

from vpcore.commands.options import (
    a_folder,
    check_known,
    data_option,
    device_option,
    scheduler_option,
    study_options,
    warn_of_emulation,
)
from vpcore.errors import InputError
from vpcore.files import set_aside
from vpcore.networks import parallel
from vpcore.study.execution import Done, device_named, execute
from vpcore.study.execution import train as trained
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile
from vpcore.study.replay import replay as computed_again
from vpcore.study.run import FIELDS, Run, run_id, run_name
from vpcore.study.store import Store
from vpcore.study.toy import data_or_fakes


@click.command()
@study_options
@data_option
@device_option
@click.option("--workers", type=int, help="Processes side by side, with one thread each.  [default: the cores; 1 on a GPU]")
@scheduler_option
@click.option("--dashboard", is_flag=True, help="Let Dask show on a web page of this machine what its workers do.")
@click.option("--minutes", type=float, help="Begin no job after so many minutes, and say what is left.  [default: no limit]")
@click.option("--only", multiple=True, help=f"Only runs of this method ({', '.join(FIELDS)}); may be repeated.")
@click.option("--grid", "grids", multiple=True, help="Only the grids of this name; may be repeated.")
@click.option("--task", "tasks", multiple=True, help="Only transfers to this task; may be repeated.")
@click.option("--chain", "chains", type=int, multiple=True, help="Only networks of this source_seed; may be repeated.")
@click.option(
    "--wandb", is_flag=True, help="Mirror the records to Weights & Biases; offline unless WANDB_MODE says otherwise."
)
@click.option("--wandb-tickets", is_flag=True, help="Mirror the tickets, too, as artifacts.")
@click.option("--again", is_flag=True, help="Compute the records anew that were computed by other code than there is now.")
@click.option("--quiet", is_flag=True, help="Print failures and the last line only.")
def run(
    card: Profile, store: Store, data: Path | None, device: str, workers: int | None, scheduler: str, dashboard: bool,
    minutes: float | None, only: tuple[str, ...], grids: tuple[str, ...], tasks: tuple[str, ...], chains: tuple[int, ...],
    wandb: bool, wandb_tickets: bool, again: bool, quiet: bool,
) -> None:  # fmt: skip
    """Compute what is missing of a profile.

    Every run leaves one record in RESULTS/PROFILE/records and is never computed twice; interrupt and repeat the command at
    will. A run that fails is reported and does not stop the others.
    """
    chosen = tuple(dict.fromkeys(r for name in grids for r in card.grid(name))) if grids else card.runs
    check_known("method", only, FIELDS)
    check_known(f"task of the profile {card.name}:", tasks, {r.task for r in chosen if r.method != "source"})
    check_known(f"chain of the profile {card.name}, a source_seed:", chains, {r.source_seed for r in chosen})
    runs = tuple(
        r
        for r in chosen
        if (not only or r.method in only) and (not tasks or r.task in tasks) and (not chains or r.source_seed in chains)
    )

    def say(text: str) -> None:
        if not quiet:
            tqdm.write(text)

    where, start, failed = device_named(device), time.perf_counter(), []
    folder = data_or_fakes(card, runs, store, data)
    _of_other_code(runs, store, again=again, say=say)
    steps = execute(
        runs, store, device=where, folder=folder, protocol=card.protocol, workers=workers, scheduler=scheduler,
        dashboard=dashboard, minutes=minutes, log=lambda text: say(f"    {text}"),
    )  # fmt: skip
    todo = jobs(runs, store, across_tasks=where.type != "cpu")
    say(f"{card.title}: {len(runs)} runs, {len(todo)} jobs to do, on {where}")
    warn_of_emulation(where, () if quiet else {r.precision for job in todo for r in job.runs})
    mirror = None
    if wandb or wandb_tickets:
        from vpcore.study.tracking import Tracker

        paths = {run_id(r): store.ticket_path(r) for r in runs if r.method == "source" and wandb_tickets}
        mirror = Tracker(card.name, store.results, say, paths)
    ended = 0
    for done in tqdm(steps, total=len(todo), unit="job", smoothing=0, leave=False, disable=quiet or None):
        ended += 1
        if done.error is not None:
            failed.append(done)
            tqdm.write(f"FAILED {done.job}: {_reason(done.error)}", file=sys.stderr)
        else:
            left = (time.perf_counter() - start) / done.number * (done.total - done.number)
            say(f"{progress_line(done)} | {_clock(left)} left")
            if mirror is not None:
                mirror.log(done.records)
    if mirror is not None:
        wanted = set(map(run_id, runs))
        mirror.catch_up([record for record in store.records() if record["id"] in wanted])
        mirror.table(store.table(runs))
    told = f"{card.name}: {ended - len(failed)} jobs done, {len(failed)} failed, in {_clock(time.perf_counter() - start)}"
    click.echo(f"{told}; records in {home(store, store.root / 'records')}")
    if left := len(jobs(runs, store, across_tasks=where.type != "cpu")) - len(failed):
        click.echo(f"{left} jobs are left; the same command goes on with them")
    if failed:
        sys.exit(2 if all(isinstance(done.error, InputError) for done in failed) else 1)


@click.command()
@study_options
@data_option
@device_option
@click.option("--chain", "chains", type=int, multiple=True, help="Only networks of this source_seed; may be repeated.")
def train(card: Profile, store: Store, data: Path | None, device: str, chains: tuple[int, ...]) -> None:
    """Train the networks of a profile that are missing, each by all processes that torchrun starts.

    \b
    torchrun --standalone --nproc-per-node 8 -m vpcore train --profile imagenet --data DIR

    Each process takes its share of every batch, on a GPU of its own. What is interrupted goes on after its last epoch, when
    the same command is given again (or by itself, with --max-restarts 3). `vpcore run` then does the rest.
    """
    check_known(f"chain of the profile {card.name}, a source_seed:", chains, {r.source_seed for r in card.runs})
    runs = tuple(r for r in card.runs if not chains or r.source_seed in chains)
    where = device_named(device)
    with parallel.launched(where):
        say = click.echo if parallel.is_first() else lambda text: None
        if parallel.is_first():
            data_or_fakes(card, runs, store, data)  # what one process has made, the others find
        parallel.wait()
        folder = data_or_fakes(card, runs, store, data)
        made = 0
        for ticket in trained(runs, store, device=where, folder=folder, protocol=card.protocol, log=say):
            made += 1
            say(f"made {store.ticket_path(ticket)}")
        say(f"{card.name}: {made} networks made, by {parallel.processes()} processes")


def _of_other_code(runs: tuple[Run, ...], store: Store, *, again: bool, say: Callable[[str], None]) -> None:
    """Tell which records are not of the present code; with `again` set them aside."""
    store.set_aside_damaged()
    if not (files := store.of_other_code(runs)):
        return
    told = f"{len(files)} files of records were computed by other code than this"
    if not again:
        say(f"{told}: `vpcore replay` computes some again and compares, --again computes all of them anew")
        return
    for path in files:
        set_aside(path, since="other-code")
    say(f"{told}; they are set aside as NAME.json.other-code, and computed anew on the tickets that there are")


def progress_line(done: Done) -> str:
    """One line on a finished job: what, the mean result, and how long."""
    accuracy, ece = (sum(r[name] for r in done.records) / len(done.records) for name in ("accuracy", "ece"))
    return f"[{done.number}/{done.total}] {done.job}: accuracy {accuracy:.3f}, ECE {ece:.3f} | {done.seconds:.1f} s"


def home(store: Store, path: Path) -> Path:
    """Where to look for records: the file or folder that holds those computed here, or else what is committed."""
    there = path.is_file() or any(path.glob("*.json"))
    return path if there else next((p for p in (store.published, store.parts) if p.exists()), path)


def _reason(error: Exception) -> str:
    return (
        str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error} (traceback in the folder failed)"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@click.command()
@study_options
@device_option
def status(card: Profile, store: Store, device: str) -> None:
    """Say what of a profile is done, failed and missing; on a GPU a job may have several tasks."""
    todo = jobs(card.runs, store, across_tasks=device_named(device).type != "cpu")
    missing = {due for job in todo for due in job.runs}
    failures = store.failures()
    click.echo(f"{card.title}\n{card.about}\n\nresults in {home(store, store.root / 'records')}")
    for method in FIELDS:
        mine = [r for r in card.runs if r.method == method]
        click.echo(f"  {method:8} {len(mine) - sum(r in missing for r in mine):5} of {len(mine)} runs done")
    click.echo(f"  {len(todo)} jobs to do, {len(failures)} runs failed")
    if files := store.of_other_code(card.runs):
        click.echo(f"  {len(files)} files of records come from other code than this; see `vpcore run --again`")
    for path, reason in failures[:10]:
        click.echo(f"    {path}: {reason[:200]}")


@click.command()
@study_options
@click.option("--part", is_flag=True, help="Only what no committed table has, as a part: RESULTS/parts/PROFILE/NNN.parquet.")
def publish(card: Profile, store: Store, part: bool) -> None:
    """Write the records of a profile to one table, RESULTS/PROFILE.parquet, which is what gets committed.

    A study of days is committed in parts, as its records are finished, each with what every test image came to.
    """
    path = store.publish_part(card.runs) if part else store.publish(card.runs)
    if path is None:
        click.echo(f"nothing new of {card.name} to publish")
    else:
        click.echo(f"wrote {path}" + (f" and {store.outcomes_path(path).name}" if part else ""))


@click.command()
@study_options
@data_option
@device_option
@click.option("--count", default=20, show_default=True, help="Records that are drawn.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
def replay(card: Profile, store: Store, data: Path | None, device: str, count: int, seed: int) -> None:
    """Compute records again that are drawn from those that there are, and compare every number; nothing is written.

    \b
    vpcore replay --profile real --data DIR --count 20
    vpcore replay --results results/reference          # records of mini that are shipped, with two of its tickets

    Exit code 1 when a number differs that was recorded by the same kind of machine and with the same versions.
    """
    folder, drawn = data_or_fakes(card, card.runs, store, data), []
    for one in computed_again(card.runs, store, count=count, seed=seed, device=device_named(device), folder=folder):
        drawn.append(one)
        told = ", ".join(sorted(one.differences)) or "equal to the bit"
        click.echo(f"  {run_name(one.run)}: {told}{'' if one.same_place else ' (recorded by another kind of machine)'}")
    changed = sum(bool(one.differences) and one.same_place for one in drawn)
    elsewhere = sum(not one.same_place for one in drawn)
    click.echo(f"{len(drawn)} records computed again: {changed} changed, {elsewhere} recorded elsewhere")
    if changed:
        sys.exit(1)


@click.command()
@study_options
def compare(card: Profile, store: Store) -> None:
    """Compare a study that you have computed with ours: its headline numbers, and how many records are equal to the bit.

    \b
    vpcore run && vpcore compare

    A number agrees when it differs by less than another dense network would explain (vpcore/report/reference.py). Exit code
    1 when one does not.
    """
    from vpcore.report import reference

    yours, ours = reference.both(card, store)
    found = reference.compare(yours, ours, reference.tolerances(reference.spread()))
    shown = found.assign(**{name: (100 * found[name]).map("{:.2f}".format) for name in reference.NUMBERS})
    click.echo(shown.to_string(index=False))
    click.echo(f"in per cent; {reference.equal_records(yours, ours)} of {len(ours)} records are equal to the bit")
    if differing := int((found["verdict"] == "differs").sum()):
        click.echo(f"{differing} of {len(found)} numbers differ by more than another dense network would explain")
        sys.exit(1)


@click.command()
@study_options
@data_option
@device_option
@scheduler_option
@click.option("--only", multiple=True, help="Only this notebook, be it one that shows no runs; may be repeated.")
@click.option("--output", type=a_folder, help="Folder of figures, tables and numbers.  [default: RESULTS/PROFILE/book]")
def book(
    card: Profile, store: Store, data: Path | None, device: str, scheduler: str, only: tuple[str, ...], output: Path | None
) -> None:
    """Run the notebooks that show runs of the profile as a batch, after computing what is missing of it.

    Each leaves its figures, tables, numbers and executed copy in a folder of its own. Notebooks whose code, parameters and
    results have not changed are skipped. `jupyter-book build book/` does the same for the profile that the book shows.
    """
    try:
        from vpcore.report import batch
    except ImportError as error:
        raise InputError(
            f"the notebooks need packages that are not installed ({error.name}); use: pip install 'vpcore[book]'"
        ) from error
    device_named(device)
    given, folder = click.get_current_context().params, (output or store.root / "book").resolve()
    ran = batch.regenerate(
        folder, profile=given["profile"], toy=given["toy"], device=device, data=str(data.resolve()) if data else "",
        results=str(store.results.resolve()), only=only, scheduler=scheduler,
        log=click.echo,
    )  # fmt: skip
    click.echo(f"{card.name}: {len(ran)} notebooks ran; output in {folder}")
