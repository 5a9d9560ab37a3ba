"""What is wrong in a call of a public function of data and calibration comes back as an `InputError` that names it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vpcore
from vpcore import InputError
from vpcore.calibration.authors_ece import batch_ece, legacy_ece
from vpcore.calibration.binned import classwise, toplabel
from vpcore.calibration.recalibration import fit, optimal_temperature
from vpcore.calibration.scores import brier_parts
from vpcore.calibration.smooth_ece import smooth
from vpcore.data.drawn import draw
from vpcore.data.splits import hold_out
from vpcore.data.tasks import classes, digest, fetch

N, T = 12, 3
LOGITS = 3 * torch.randn(N, T, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % T
PREDICTIONS = vpcore.Predictions.from_logits(LOGITS, LABELS)

BAD_MATRICES: dict[str, Any] = {
    "one row": LOGITS[0],
    "three dimensions": LOGITS.expand(2, N, T),
    "no rows": LOGITS[:0],
    "no classes": LOGITS[:, :0],
    "nan": LOGITS.masked_fill(LOGITS > 2, torch.nan),
    "infinite": LOGITS.masked_fill(LOGITS > 2, torch.inf),
    "complex": LOGITS.to(torch.complex64),
    "truth values": LOGITS > 0,
    "ragged lists": [[1.0, 2.0, 3.0], [1.0]],
    "empty list": [],
    "words": [["a", "b", "c"]] * N,
    "text": "logits.npy",
    "none": None,
    "mapping": {"logits": LOGITS},
    "objects": np.array([[None] * T] * N),
    "sparse": LOGITS.to_sparse(),
    "meta": LOGITS.to("meta"),
    "masked": np.ma.masked_array(LOGITS.numpy(), LOGITS.numpy() > 2),
}
BAD_LABELS: dict[str, Any] = {
    "one-hot": torch.nn.functional.one_hot(LABELS, T),
    "column": LABELS[:, None],
    "floats": LABELS.float(),
    "complex": LABELS.to(torch.complex64),
    "from one": LABELS + 1,
    "negative": LABELS - 1,
    "too few": LABELS[:-1],
    "too many": torch.cat([LABELS, LABELS]),
    "none at all": LABELS[:0],
    "single": 1,
    "words": ["cat"] * N,
    "text": "labels.npy",
    "none": None,
    "mapping": {"labels": LABELS},
}
OF_LOGITS: dict[str, Callable[..., Any]] = {
    "metrics": vpcore.metrics,
    "from_logits": vpcore.Predictions.from_logits,
    "optimal_temperature": optimal_temperature,
    "conformal_sets": lambda z, y: vpcore.conformal_sets(z, y, LOGITS),
    **{name: partial(fit, name) for name in vpcore.RECALIBRATIONS},
}
OF_MATRICES = OF_LOGITS | {"from_probs": vpcore.Predictions.from_probs, "legacy_ece": legacy_ece}


@pytest.mark.parametrize("kind", BAD_MATRICES)
@pytest.mark.parametrize("function", OF_MATRICES)
def test_what_are_no_logits(function: str, kind: str) -> None:
    with pytest.raises(InputError, match="`(val_)?(logits|probs)` must "):
        OF_MATRICES[function](BAD_MATRICES[kind], LABELS)


@pytest.mark.parametrize("kind", BAD_LABELS)
@pytest.mark.parametrize("function", OF_MATRICES)
def test_what_are_no_labels(function: str, kind: str) -> None:
    matrix = LOGITS.softmax(1) if function == "from_probs" else LOGITS
    with pytest.raises(InputError, match="`(val_)?labels` must "):
        OF_MATRICES[function](matrix, BAD_LABELS[kind])


@pytest.mark.parametrize("function", OF_LOGITS)
def test_probabilities_are_no_logits(function: str) -> None:
    for probs in (LOGITS.softmax(1), LOGITS.softmax(1).half(), torch.nn.functional.one_hot(LABELS, T)):
        with pytest.raises(InputError, match="`(val_)?logits` must be logits"):
            OF_LOGITS[function](probs, LABELS)
    with pytest.raises(InputError, match="`probs` must be in .* logits"):
        vpcore.Predictions.from_probs(LOGITS, LABELS)


@pytest.mark.parametrize("kind", BAD_MATRICES)
def test_what_cannot_be_recalibrated(kind: str) -> None:
    for name in vpcore.RECALIBRATIONS:
        with pytest.raises(InputError, match="`logits` must "):
            fit(name, LOGITS, LABELS)(BAD_MATRICES[kind])
    with pytest.raises(InputError, match="`test_logits` must "):
        vpcore.conformal_sets(LOGITS, LABELS, BAD_MATRICES[kind])


def test_hints_name_the_way_out() -> None:
    for bad, hint in (
        (BAD_MATRICES["one row"], r"of one image\? use logits\[None\]"),
        (BAD_MATRICES["three dimensions"], r"of K networks\? take them one by one, logits\[0\]"),
        (BAD_MATRICES["no rows"], "there are no predictions to measure"),
    ):
        with pytest.raises(InputError, match=hint):
            vpcore.metrics(bad, LABELS)
    for bad, hint in (
        (BAD_LABELS["one-hot"], r"one-hot\? use labels.argmax\(1\)"),
        (BAD_LABELS["column"], r"use labels.reshape\(-1\)"),
        (BAD_LABELS["floats"], r"use labels.long\(\)"),
    ):
        with pytest.raises(InputError, match=hint):
            vpcore.metrics(LOGITS, bad)


@pytest.mark.parametrize("wrong", [LOGITS, LOGITS.softmax(1), None, "logits.npy", (LOGITS, LABELS), 0.5])
def test_what_are_no_predictions(wrong: Any) -> None:
    calls = [vpcore.reliability, lambda p: vpcore.interval(p, vpcore.METRICS["ece"], seed=0), *vpcore.METRICS.values()]
    for call in calls:
        with pytest.raises(InputError, match="`predictions` must be Predictions, got .*; use Predictions.from_logits"):
            call(wrong)


# Single arguments: a call that is right but for them, their name, and values that will not do ----------------------------


def photos(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / "photos" / name / f"{number}.png")
    return folder / "photos"


IMAGES = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
COUNTS = (0, -1, 1.5, "3", True, [2], float("nan"), 10**12)
SHARES = (-0.1, 1.5, "0.5", True, [0.5], float("nan"))
NAMES = ("nothing", "", None, 3, ["lac"])
PATHS = (None, 3, ["photos"], "a\0b", 300 * "x")

SINGLE: dict[str, tuple[Callable[..., Any], str, tuple[Any, ...]]] = {
    "metrics": (lambda v: vpcore.metrics(LOGITS, LABELS, legacy_batch=v), "batch", COUNTS),
    "legacy_ece": (lambda v: legacy_ece(LOGITS, LABELS, batch=v), "batch", COUNTS),
    "batch_ece": (lambda v: batch_ece(PREDICTIONS, batch=v), "batch", COUNTS),
    "reliability": (lambda v: vpcore.reliability(PREDICTIONS, bins=v), "bins", COUNTS),
    "binning": (lambda v: vpcore.reliability(PREDICTIONS, binning=v), "binning", NAMES),
    "toplabel": (lambda v: toplabel(PREDICTIONS, bins=v), "bins", COUNTS),
    "classwise": (lambda v: classwise(PREDICTIONS, bins=v), "bins", COUNTS),
    "brier_parts": (lambda v: brier_parts(PREDICTIONS, bins=v), "bins", COUNTS),
    "smooth": (lambda v: smooth(PREDICTIONS, width=v), "width", (0, -1, "0.1", [0.1], True, float("nan"), float("inf"))),
    "level of sets": (lambda v: vpcore.conformal_sets(LOGITS, LABELS, LOGITS, level=v), "level", (*SHARES, 0, 1, None)),
    "score of sets": (lambda v: vpcore.conformal_sets(LOGITS, LABELS, LOGITS, score=v), "conformal score", NAMES),
    "recalibration": (lambda v: fit(v, LOGITS, LABELS), "recalibration", NAMES),
    "level": (lambda v: vpcore.interval(PREDICTIONS, len, seed=0, level=v), "level", (*SHARES, 0, 1, None)),
    "resamples": (lambda v: vpcore.interval(PREDICTIONS, len, seed=0, resamples=v), "resamples", COUNTS),
    "seed": (lambda v: vpcore.interval(PREDICTIONS, len, seed=v), "seed", COUNTS[1:]),
    "metric": (lambda v: vpcore.interval(PREDICTIONS, v, seed=0), "metric", ("ece", None, 3)),
    "what a metric gives": (lambda v: vpcore.interval(PREDICTIONS, lambda p: v, seed=0), "metric", ("a", None, LOGITS)),
    "corrupt": (lambda v: vpcore.corrupt(IMAGES, v, severity=1, seed=0), "corruption", NAMES),
    "severity": (
        lambda v: vpcore.corrupt(IMAGES, "jpeg", severity=v, seed=0),
        "severity",
        (0, 4, 1.0, "1", None, [1], True),
    ),
    "seed of noise": (lambda v: vpcore.corrupt(IMAGES, "jpeg", severity=1, seed=v), "seed", COUNTS[1:]),
    "images": (
        lambda v: vpcore.corrupt(v, "jpeg", severity=1, seed=0),
        "images",
        (
            IMAGES.float(),
            IMAGES[0],
            IMAGES[:, :1],
            IMAGES[..., 1:],
            IMAGES.tolist(),
            "a.png",
            None,
            [1],
            IMAGES[..., :0, :0],
            IMAGES.to_sparse(),
            IMAGES.to("meta"),
        ),
    ),
    "budget": (lambda v: vpcore.shots(LABELS, v, task="t", seed=0), "budget", COUNTS),
    "task of shots": (lambda v: vpcore.shots(LABELS, 1, task=v, seed=0), "task", (None, 5)),
    "seed of shots": (lambda v: vpcore.shots(LABELS, 1, task="t", seed=v), "seed", COUNTS[1:]),
    "labels of shots": (
        lambda v: vpcore.shots(v, 1, task="t", seed=0),
        "labels",
        tuple(value for kind, value in BAD_LABELS.items() if kind not in ("from one", "too few", "too many", "none at all")),
    ),
    "share": (lambda v: hold_out(LABELS, "t", share=v), "share", (*SHARES, None)),
    "px": (lambda v: vpcore.load("shapes", "test", px=v), "px", COUNTS),
    "per_class": (lambda v: vpcore.load("shapes", "test", px=8, per_class=v), "per_class", COUNTS),
    "cache": (lambda v: vpcore.load("shapes", "test", px=8, per_class=1, cache=v), "cache", PATHS[1:]),
    "split": (lambda v: vpcore.load("shapes", v, px=8), "split", NAMES),
    "px of a folder": (lambda v: vpcore.image_folder("photos", px=v), "px", COUNTS),
    "path": (lambda v: vpcore.image_folder(v, px=8), "path", (*PATHS, "nowhere")),
    "folder to pack": (lambda v: vpcore.pack(v, "data"), "folder|path", (*PATHS, "nowhere")),
    "out": (lambda v: vpcore.pack("photos", v), "out", PATHS),
    "name": (lambda v: vpcore.pack("photos", "data", name=v), "name", ("a b", "", "../a", 3, ["a"], "digits", "tv-a")),
    "test_share": (lambda v: vpcore.pack("photos", "data", test_share=v), "test_share", (*SHARES, 0, 1, None)),
    "task": (lambda v: vpcore.load(v, "test", px=8, folder=Path()), "task", NAMES),
    "data folder": (lambda v: vpcore.load("cifar10", "test", px=8, folder=v), "data", (*PATHS, "nowhere")),
    "task of classes": (lambda v: classes(v, folder=Path()), "task", NAMES),
    "task of a digest": (lambda v: digest(v, folder=Path()), "task", NAMES),
    "task to fetch": (lambda v: fetch(v, Path()), "image set to fetch|task", NAMES),
    "folder to fetch into": (lambda v: fetch("tv-cifar10", v), "folder", PATHS),
    "drawn task": (lambda v: draw(v, per_class=1, px=8, seed=0), "drawn task", ("nothing", None, 3)),
}


@pytest.mark.parametrize(("case", "value"), [(case, value) for case, (_, _, values) in SINGLE.items() for value in values])
def test_a_bad_argument_is_named(case: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    call, name, _ = SINGLE[case]
    with pytest.raises(InputError, match=f"`({name})` must |unknown ({name}) "):
        call(value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_every_public_function_of_data_and_calibration_is_called_here() -> None:
    """A new public name of these rooms must be met with bad calls, too, or be named here as one that computes nothing."""
    homes = {name: getattr(getattr(vpcore, name), "__module__", "") for name in vpcore.__all__}
    ours = {name for name, home in homes.items() if home.startswith(("vpcore.data.", "vpcore.calibration."))}
    values = {"Images", "Reliability"}  # what others check, and a result
    assert ours - values == {
        *("Predictions", "conformal_sets", "corrupt", "image_folder", "interval", "load", "metrics", "pack", "reliability"),
        "shots",
    }
