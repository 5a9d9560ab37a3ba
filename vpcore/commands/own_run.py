"""The command that measures one run of your own: `vpcore measure`."""

from __future__ import annotations

from pathlib import Path

import click

from vpcore.calibration.predictions import Predictions
from vpcore.commands.options import data_option, device_option, lines_of, study_options, warn_of_emulation
from vpcore.commands.studies import home, progress_line
from vpcore.study.execution import device_named, execute
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile, run_with
from vpcore.study.run import FACTS, identity, source_run
from vpcore.study.store import Store
from vpcore.study.toy import data_or_fakes


class _WithFields(click.Command):
    """Its help text lists the fields of a run."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        about = {name: fact.about.replace("; None: all", ", or all") for name, fact in FACTS.items()}
        choices = {name: f": {', '.join(fact.choices)}" if fact.choices else "" for name, fact in FACTS.items()}
        with formatter.section("Fields (those that are not given are as in the profile)"):
            formatter.write_dl([(name, f"{about[name]}{choices[name]}") for name in FACTS])


@click.command(cls=_WithFields)
@study_options
@data_option
@device_option
@click.argument("settings", nargs=-1, metavar="FIELD=VALUE...")
def measure(card: Profile, store: Store, data: Path | None, device: str, settings: tuple[str, ...]) -> None:
    """Measure one run of your own: the values of a profile, with some fields replaced.

    \b
    vpcore measure method=vp task=digits budget=4 mapping=blm
    vpcore measure method=lp task=shapes probe=optimum sparsifier=rigl round=3
    vpcore measure method=vp task=digits weight_bits=4 activation_bits=4
    """
    run, where = run_with(card, settings), device_named(device)
    given = [setting.partition("=")[0] for setting in settings]
    if "method" not in given:
        click.echo(f"method={run.method}, since none is given: {FACTS['method'].about}")
    if idle := [name for name in given if name not in identity(run)]:
        click.echo(f"note: {', '.join(idle)} left out: no effect on method={run.method} with the other fields as they are")
    runs = source_run(run), run
    folder, todo = data_or_fakes(card, runs, store, data), jobs(runs, store)
    warn_of_emulation(where, {run.precision for job in todo for run in job.runs})
    for done in execute(runs, store, device=where, folder=folder, protocol=card.protocol, log=click.echo):
        if done.error is not None:
            raise done.error
        click.echo(progress_line(done))
    if not todo:
        click.echo("recorded before, nothing is computed")
    record = store.table((run,)).iloc[0]
    names = ("accuracy", "ece", "nll", "brier", "confidence")
    if store.arrays_path(run).exists():  # a published table has no predictions
        arrays = store.arrays(run)
        predictions = Predictions.from_logits(arrays["logits"], arrays["labels"])
        click.echo(f"  in brackets: 95 % bootstrap intervals over {len(predictions.labels)} test images")
        lines = lines_of(predictions, names)
    else:
        lines = (f"  {name:14} {record[name]:.4f}" for name in names)
    for line in (*lines, *(f"  {name:14} {record[name]:.4f}" for name in ("density", "val_accuracy"))):
        click.echo(line)
    if record.get("saturated", 0) == 1:
        click.echo(f"  note: some classes have fewer than {run.budget} images, and give all that they have")
    click.echo(f"  record in {home(store, store.record_path(run))}")
