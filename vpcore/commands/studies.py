"""The commands of a study: `vpcore run`, `measure`, `status`, `publish`, `book`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import interval
from vpcore.commands.options import Command, data_option, device_option
from vpcore.errors import InputError, unknown
from vpcore.study.execution import Done, device_named, execute
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile, load_profile, profile_names, run_with
from vpcore.study.replay import replay as computed_again
from vpcore.study.run import FIELDS, run_name, source_run
from vpcore.study.store import Store
from vpcore.study.toy import data_or_fakes


def _options(command: Command) -> Command:
    for option in (
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Folder of all results.",
        ),
        click.option(
            "--toy", is_flag=True, help="Shrink the profile to about two minutes; results stay apart, in PROFILE-toy."
        ),
        click.option(
            "--profile", default="mini", show_default=True, help=f"One of {', '.join(profile_names())}, or a TOML file."
        ),
    ):
        command = option(command)
    return command


def _open(profile: str, toy: bool, results: Path) -> tuple[Profile, Store]:
    card = load_profile(profile, toy=toy)
    return card, Store(results, card.name)


@click.command()
@_options
@data_option
@device_option
@click.option(
    "--workers",
    type=int,
    help="Processes side by side, with one thread each.  [default: the cores; 1 on a GPU]",
)
@click.option(
    "--minutes", type=float, help="Begin no job after so many minutes, and say what is left.  [default: go on to the end]"
)
@click.option("--only", multiple=True, help=f"Only runs of this method ({', '.join(FIELDS)}); may be repeated.")
@click.option("--grid", "grids", multiple=True, help="Only the grids of this name; may be repeated.")
@click.option("--task", "tasks", multiple=True, help="Only transfers to this task; may be repeated.")
@click.option("--chain", "chains", type=int, multiple=True, help="Only networks of this source_seed; may be repeated.")
@click.option(
    "--wandb",
    "track",
    is_flag=True,
    help="Mirror the records to Weights & Biases; offline unless WANDB_MODE says otherwise.",
)
@click.option("--quiet", is_flag=True, help="Print failures and the last line only.")
def run(
    profile: str,
    toy: bool,
    results: Path,
    data: Path | None,
    device: str,
    workers: int | None,
    minutes: float | None,
    only: tuple[str, ...],
    grids: tuple[str, ...],
    tasks: tuple[str, ...],
    chains: tuple[int, ...],
    track: bool,
    quiet: bool,
) -> None:
    """Compute what is missing of a profile.

    Every run leaves one record in RESULTS/PROFILE/records and is never computed twice; interrupt and repeat the command at
    will. A run that fails is reported and does not stop the others.
    """
    card, store = _open(profile, toy, results)
    for method in only:
        if method not in FIELDS:
            raise unknown("method", method, FIELDS)
    chosen = tuple(dict.fromkeys(r for name in grids for r in card.grid(name))) if grids else card.runs
    there = {r.task for r in chosen if r.method != "source"}
    for task in tasks:
        if task not in there:
            raise unknown(f"task of the profile {card.name}:", task, there)
    if strangers := set(chains) - {r.source_seed for r in chosen}:
        known = sorted({r.source_seed for r in chosen})
        raise InputError(f"`chain` must be a source_seed of the profile {card.name}, one of {known}, got {min(strangers)}")
    runs = tuple(
        r
        for r in chosen
        if (not only or r.method in only) and (not tasks or r.task in tasks) and (not chains or r.source_seed in chains)
    )
    where, total = device_named(device), len(jobs(runs, store))

    def say(text: str) -> None:
        if not quiet:
            click.echo(text)

    folder = data_or_fakes(card, runs, store, data)
    steps = execute(
        runs,
        store,
        device=where,
        folder=folder,
        protocol=card.protocol,
        workers=workers,
        minutes=minutes,
        log=lambda text: say(f"    {text}"),
    )
    say(f"{card.title}: {len(runs)} runs, {total} jobs to do, on {where}")
    mirror = None
    if track:
        from vpcore.study.tracking import Tracker

        mirror = Tracker(card.name, results)
    start, failed, ended = time.perf_counter(), [], 0
    for done in steps:
        ended += 1
        if done.error is not None:
            failed.append(done)
            click.echo(f"FAILED {done.job}: {_reason(done)}", err=True)
        else:
            say(progress_line(done))
            if mirror is not None:
                mirror.log(done.records)
    click.echo(
        f"{card.name}: {ended - len(failed)} jobs done, {len(failed)} failed, in {_clock(time.perf_counter() - start)}; "
        f"records in {store.root / 'records'}"
    )
    if ended < total:
        click.echo(f"{total - ended} jobs are left; the same command goes on with them")
    if failed:
        sys.exit(2 if all(isinstance(done.error, InputError) for done in failed) else 1)


def progress_line(done: Done) -> str:
    """One line on a finished job: what, how long, the mean result, and the time left."""
    accuracy = sum(r["accuracy"] for r in done.records) / len(done.records)
    ece = sum(r["ece"] for r in done.records) / len(done.records)
    left = "" if done.left is None else f" | {_clock(done.left)} left"
    return f"[{done.number}/{done.total}] {done.job}: accuracy {accuracy:.3f}, ECE {ece:.3f} | {done.seconds:.1f} s{left}"


def _reason(done: Done) -> str:
    return (
        str(done.error)
        if isinstance(done.error, InputError)
        else f"{type(done.error).__name__}: {done.error} (traceback in the folder failed)"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@click.command()
@_options
@data_option
@device_option
@click.argument("settings", nargs=-1, metavar="FIELD=VALUE...")
def measure(profile: str, toy: bool, results: Path, data: Path | None, device: str, settings: tuple[str, ...]) -> None:
    """Measure one run of one's own: the values of a profile, with fields of `vpcore.study.run.Run` replaced.

    \b
    vpcore measure method=vp task=digits budget=4 mapping=blm
    vpcore measure method=lp task=shapes probe=optimum sparsifier=rigl round=3
    vpcore measure method=vp task=digits weight_bits=4 activation_bits=4
    """
    card, store = _open(profile, toy, results)
    run = run_with(card, settings)
    runs = source_run(run), run
    folder = data_or_fakes(card, runs, store, data)
    for done in execute(runs, store, device=device_named(device), folder=folder, protocol=card.protocol, log=click.echo):
        if done.error is not None:
            raise done.error
        click.echo(progress_line(done))
    record, ranges = store.table((run,)).iloc[0], {}
    names = ("accuracy", "ece", "nll", "brier", "confidence")
    if store.arrays_path(run).exists():  # a published table has no predictions
        arrays = store.arrays(run)
        predictions = Predictions.from_logits(arrays["logits"], arrays["labels"])
        ranges = {name: interval(predictions, METRICS[name], seed=0) for name in names}
        click.echo(f"  in brackets: 95 % bootstrap intervals over {len(predictions.labels)} test images")
    for name in (*names, "density", "val_accuracy"):
        found = ranges.get(name)
        click.echo(f"  {name:14} {record[name]:.4f}" + (f"  ({found.low:.4f} to {found.high:.4f})" if found else ""))
    click.echo(f"  record in {store.record_path(run)}")


@click.command()
@_options
def status(profile: str, toy: bool, results: Path) -> None:
    """Say what of a profile is done, failed and missing."""
    card, store = _open(profile, toy, results)
    todo = jobs(card.runs, store)
    missing = {run for job in todo for run in job.runs}
    failures = sorted((store.root / "failed").glob("*.txt"))
    click.echo(f"{card.title}\n{card.about}\n\nresults in {store.root}")
    for method in FIELDS:
        mine = [r for r in card.runs if r.method == method]
        click.echo(f"  {method:8} {len(mine) - sum(r in missing for r in mine):5} of {len(mine)} runs done")
    click.echo(f"  {len(todo)} jobs to do, {len(failures)} runs failed")
    for path in failures[:10]:
        click.echo(f"    {path}: {path.read_text().strip().splitlines()[-1][:200]}")


@click.command()
@_options
@click.option("--part", is_flag=True, help="Only what no committed table has, as a part: RESULTS/parts/PROFILE/NNN.parquet.")
def publish(profile: str, toy: bool, results: Path, part: bool) -> None:
    """Write the records of a profile to one table, RESULTS/PROFILE.parquet, which is what gets committed.

    A study of days is committed in parts, as its records are finished, each with what every test image came to.
    """
    card, store = _open(profile, toy, results)
    if not part:
        click.echo(f"wrote {store.publish(card.runs)}")
    elif (path := store.publish_part(card.runs)) is None:
        click.echo(f"nothing new of {card.name} to publish")
    else:
        click.echo(f"wrote {path} and {store.outcomes_path(path).name}")


@click.command()
@_options
@data_option
@device_option
@click.option("--count", default=20, show_default=True, help="Records that are drawn.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
def replay(profile: str, toy: bool, results: Path, data: Path | None, device: str, count: int, seed: int) -> None:
    """Compute records again that are drawn from those that there are, and compare every number; nothing is written.

    \b
    vpcore replay --profile real --data DIR --count 20

    Exit code 1 when a number differs that was recorded by the same kind of machine and with the same versions.
    """
    card, store = _open(profile, toy, results)
    folder = data_or_fakes(card, card.runs, store, data)
    changed, elsewhere = 0, 0
    drawn = 0
    for one in computed_again(card.runs, store, count=count, seed=seed, device=device_named(device), folder=folder):
        drawn += 1
        changed += bool(one.differences) and one.same_place
        elsewhere += not one.same_place
        told = ", ".join(sorted(one.differences)) or "equal to the bit"
        click.echo(f"  {run_name(one.run)}: {told}{'' if one.same_place else ' (recorded by another kind of machine)'}")
    click.echo(f"{drawn} records computed again: {changed} changed, {elsewhere} recorded elsewhere")
    if changed:
        sys.exit(1)


@click.command()
@_options
@data_option
@device_option
@click.option("--only", multiple=True, help="Only this notebook; may be repeated.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of figures, tables and numbers.  [default: RESULTS/PROFILE/book]",
)
def book(
    profile: str, toy: bool, results: Path, data: Path | None, device: str, only: tuple[str, ...], output: Path | None
) -> None:
    """Run all notebooks as a batch, after computing what is missing of the profile.

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
    card, store = _open(profile, toy, results.resolve())
    folder = (output or store.root / "book").resolve()
    ran = batch.regenerate(
        folder,
        profile=profile,
        toy=toy,
        device=device,
        data=str(data.resolve()) if data else "",
        results=str(store.results),
        only=only,
        log=click.echo,
    )
    click.echo(f"{card.name}: {len(ran)} notebooks ran; output in {folder}")
