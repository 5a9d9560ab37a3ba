"""The command for logits of your own: `vpcore calibrate`, from a file of any framework to all metrics.

    .npz, .safetensors, .pt, .pth   arrays by name: `logits` (N, T) and `labels` (N,)
    .csv                            a row an image: a column `label`, and a column of logits for each class; or one without
                                    column names, for logits and labels in files of their own
    .npy                            one array, logits or labels, the other in a file of its own

Only arrays are read, so that a file cannot run code.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.recalibration import RECALIBRATIONS, fit, optimal_temperature
from vpcore.calibration.scores import interval
from vpcore.commands.options import a_path, output_option
from vpcore.errors import InputError, unknown
from vpcore.files import write_atomically

# suffix -> how such a file is written
KINDS = {
    ".npz": "np.savez(FILE, logits=..., labels=...)",
    ".safetensors": 'save_file({"logits": ..., "labels": ...}, FILE)',
    ".pt": 'torch.save({"logits": ..., "labels": ...}, FILE)',
    ".pth": 'torch.save({"logits": ..., "labels": ...}, FILE)',
    ".csv": "one row an image, nothing but numbers below the names of the columns",
    ".npy": "np.save(FILE, array), an array of numbers",
}
WITH_INTERVALS = ("accuracy", "ece", "nll", "brier")


def read_predictions(logits: Path, labels: Path | None = None) -> tuple[Tensor, Tensor]:
    """Logits and labels of one file, or of two.

    Args:
        logits: a file of one of `KINDS`; it holds the labels, too, where `labels` is None.
        labels: the file of the labels.

    Returns:
        (N, T) logits and (N,) labels, as they are in the files; what they must be is checked where they are used.

    Raises:
        InputError: for a file that is missing, damaged, of another kind, or without the array that is looked for.
    """
    if labels is not None:
        return _one(_read(logits), "logits", logits), _one(_read(labels), "labels", labels).reshape(-1)
    found = _read(logits)
    if not {"logits", "labels"} <= found.keys():
        raise InputError(
            f"{logits} must hold `logits` and `labels`, but it holds {', '.join(found) or 'nothing'}; "
            "name the file of the labels as well: vpcore calibrate LOGITS LABELS"
        )
    return found["logits"], found["labels"].reshape(-1)


def _one(found: dict[str, Tensor], name: str, path: Path) -> Tensor:
    """The array of that name, or the only one."""
    if name not in found and len(found) != 1:
        raise InputError(f"{path} must hold `{name}`, or one array; it holds {', '.join(found) or 'nothing'}")
    return found[name] if name in found else next(iter(found.values()))


def _read(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, by name; the one of a file that has no names is called as the file."""
    if path.suffix not in KINDS:
        raise unknown(f"kind of file, of {path}:", path.suffix, KINDS)
    if not path.is_file():
        raise InputError(f"there is no file {path}; name one that holds logits or labels")
    try:
        if path.suffix == ".csv":
            return _read_csv(path)
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif path.suffix in (".npy", ".npz"):
            loaded = np.load(path)
            content = {name: torch.from_numpy(array) for name, array in _named(loaded, path).items()}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content = content if isinstance(content, dict) else {path.stem: content}
        return {str(name): torch.as_tensor(value) for name, value in content.items()}
    except Exception as error:  # noqa: BLE001 readers fail on rubbish in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} must hold arrays of numbers; it is damaged or something else ({reason}); write it again: "
            f"{KINDS[path.suffix]}"
        ) from error


def _named(loaded: np.ndarray | np.lib.npyio.NpzFile, path: Path) -> dict[str, np.ndarray]:
    return {path.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def _read_csv(path: Path) -> dict[str, Tensor]:
    first = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
    named = pd.to_numeric(first, errors="coerce").isna().any()
    table = pd.read_csv(path, header="infer" if named else None, dtype=None if named else float)
    label = next((name for name in ("label", "labels") if named and name in table), None)
    if label is None:
        return {path.stem: torch.from_numpy(table.to_numpy(dtype=float, copy=True))}
    logits = table.drop(columns=label).to_numpy(dtype=float, copy=True)
    return {"logits": torch.from_numpy(logits), "labels": torch.from_numpy(table[label].to_numpy(copy=True))}


@click.command()
@click.argument("logits", type=a_path)
@click.argument("labels", type=a_path, required=False)
@click.option("--fit", "held_out", type=a_path, help="Logits of validation data, to recalibrate with.")
@click.option("--fit-labels", type=a_path, help="Their labels, where these have a file of their own.")
@click.option("--method", help=f"How to recalibrate with these: {', '.join(RECALIBRATIONS)}.  [default: temperature]")
@output_option(".json", "JSON file that gets the numbers.")
def calibrate(
    logits: Path,
    labels: Path | None,
    held_out: Path | None,
    fit_labels: Path | None,
    method: str | None,
    output: Path | None,
) -> None:
    """Measure how well logits are calibrated.

    LOGITS is a file (.npz, .safetensors, .pt, .csv) that holds `logits` (N, T) and `labels` (N,); or it has the logits
    alone (also .npy), and LABELS is the file of the labels. In a .csv the column `label` has the labels, all others logits.

    \b
    vpcore calibrate test.npz
    vpcore calibrate logits.npy labels.npy --output metrics.json
    vpcore calibrate test.npz --fit val.npz                     the metrics after temperature scaling, as well
    vpcore calibrate test.csv --fit val.csv --method isotonic
    """
    for option, given in (("--fit-labels", fit_labels), ("--method", method)):
        if given is not None and held_out is None:
            raise InputError(
                f"`{option}` needs validation data to recalibrate with; name the file of their logits with --fit"
            )
    z, y = read_predictions(logits, labels)
    before = Predictions.from_logits(z, y)
    columns = {"as they are": before}
    if held_out is None:
        tau = optimal_temperature(z, y)
        fitted = "of these very predictions; to recalibrate, name validation data with --fit"
    else:
        method = method or "temperature"
        z_val, y_val = read_predictions(held_out, fit_labels)
        tau, fitted = optimal_temperature(z_val, y_val), f"of {held_out}"
        columns[f"after {method}"] = Predictions.from_probs(fit(method, z_val, y_val)(z), before.labels)
    rows = {title: {name: metric(p) for name, metric in METRICS.items()} for title, p in columns.items()}
    click.echo(f"{len(before.labels)} predictions of {before.probs.shape[1]} classes")
    click.echo(f"  {'':18}" + "".join(f"{title:>20}" for title in rows))
    for name, metric in METRICS.items():
        values = "".join(f"{row[name]:20.4f}" for row in rows.values())
        found = interval(before, metric, seed=0) if name in WITH_INTERVALS else None
        click.echo(f"  {name:18}{values}  {metric.label}" + (f"  ({found.low:.4f} to {found.high:.4f})" if found else ""))
    click.echo("  in brackets: 95 % bootstrap intervals of the predictions as they are")
    click.echo(f"  temperature {tau:.4f}, {fitted}")
    if output is not None:
        content = json.dumps({"images": len(before.labels), "temperature": tau, **rows}, indent=1)
        write_atomically(output, content)
        click.echo(f"wrote {output}")
