"""The command line: `vpcore COMMAND`. A command's module is imported when it is called, so that `vpcore --help` is quick.

Exit codes: 0, all is done; 1, a run or a notebook failed for a reason that is ours; 2, something that was given must
change, and the message says what; 130 and 143, it was interrupted (Ctrl-C) or terminated, and the same command goes on.
"""

from __future__ import annotations

import re
import signal
import sys
from importlib import import_module

import click

from vpcore import __version__
from vpcore.errors import InputError

# command -> the module of `vpcore.commands` that holds it, and how its help text begins
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("studies", "Compute what is missing of a profile."),
    "train": ("studies", "Train the networks of a profile that are missing."),
    "measure": ("own_run", "Measure one run of your own."),
    "status": ("studies", "Say what of a profile is done, failed and missing."),
    "publish": ("studies", "Write the records of a profile to one table."),
    "replay": ("studies", "Compute records again that are drawn from those that there are."),
    "compare": ("studies", "Compare a study that you have computed with ours."),
    "book": ("studies", "Run the notebooks that show runs of the profile."),
    "edition": ("publication", "Keep the verdicts of the book as an edition."),
    "fetch": ("image_sets", "Download an image set into the data folder."),
    "pack": ("image_sets", "Make an image set of a folder of class folders."),
    "prune": ("own_network", "Prune a network of your own by magnitude."),
    "prompt": ("own_images", "Prompt a network of your own to read images of your own."),
    "audit": ("own_audit", "Say what compression has cost a network of your own."),
    "calibrate": ("own_logits", "Measure how well logits are calibrated."),
    "bench": ("speed", "Measure how fast the pieces are."),
}


class _Commands(click.Group):
    """Imports a command when it is called, and prints an `InputError` without a traceback, with exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(import_module(f"vpcore.commands.{COMMANDS[name][0]}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what is open is put away
        try:
            from vpcore.study.workers import keep_freed_memory  # torch, for which `vpcore --help` does not wait

            keep_freed_memory()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("vpcore: interrupted; what is finished is kept, the same command goes on from there", err=True)
            ctx.exit(130)
        except InputError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            click.echo(f"vpcore: {as_typed(str(error), command)}", err=True)
            ctx.exit(2)


def as_typed(message: str, command: click.Command | None) -> str:
    """A message of the package with the options of a command in the place of the arguments that these become.

    >>> option = click.Option(["--px", "image_px"])
    >>> as_typed("`image_px` must be less than `canvas`; use image_px=16", click.Command("prompt", params=[option]))
    '`--px` must be less than `canvas`; use --px 16'
    """
    typed = {}
    for each in command.params if command else ():
        typed[each.name] = each.opts[-1] if isinstance(each, click.Option) else each.metavar or each.name
    message = re.sub(r"`(\w+)`", lambda found: f"`{typed.get(found[1], found[1])}`", message)
    value = r"\b(\w+)=(['\"]?)([\w.+-]+)\2"
    return re.sub(value, lambda found: f"{typed[found[1]]} {found[3]}" if found[1] in typed else found[0], message)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """What does compressing a vision network cost when it is adapted by visual prompting or linear probing?

    \b
    vpcore run                       the mini study, offline, in minutes
    vpcore run --profile small --data DIR
    vpcore status --profile small    what is done, failed and missing
    vpcore measure task=digits method=vp prompt=smm budget=4
    vpcore fetch tv-cifar10 --data DIR
    vpcore bench                     how fast the pieces are
    vpcore book                      notebooks -> figures, tables, numbers for the book

    \b
    Networks, images and logits of your own:
    vpcore prune resnet50 --weights FILE --density 0.8 --output ticket.safetensors
    vpcore prompt resnet50 photos --weights ticket.safetensors --output learned.safetensors
    vpcore calibrate learned.safetensors
    vpcore pack photos --data DIR
    vpcore audit --dense NETWORK --compressed NETWORK         what did compression cost it?

    Exit codes: 0, all is done; 1, a run or a notebook failed for a reason that is ours; 2, something that was given must
    change; 130 and 143, interrupted or terminated: the same command goes on.
    """
