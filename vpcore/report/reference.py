"""Reference: does a study that a reader has computed say what ours says?

Our records of `mini` lie in results/reference, where no study takes them for its own: whoever computes it computes all of
it. On the same type of processor, with the same versions, the records are equal to the bit. Elsewhere sums are rounded
differently, and in training a small difference grows, until the networks differ as much as if they had been trained from
another seed. So a headline number x, a mean over tasks, budgets and seeds, agrees when

    |x_yours - x_ours| <= TIMES sqrt(2) s,      s: the standard deviation of x between dense networks.

That is known from the published table `methods`, whose grid `ways` has networks of the same kind from three seeds. For the
dense and the sparsest network s is pooled, since two degrees of freedom tell little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vpcore.errors import InputError
from vpcore.study.profile import Profile, load_profile
from vpcore.study.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"
TIMES = 3  # standard deviations of a difference: a dozen numbers are compared
LABELS = {"accuracy": "accuracy", "ece": "ECE"}  # of the measures that are compared
KEY = ["measure", "method", "network"]
NUMBERS = ("yours", "ours", "difference", "tolerance")


def headlines(table: pd.DataFrame) -> pd.Series:
    """The headline numbers of a study: (measure, method, "dense" or "sparsest") -> the mean over tasks.

    Args:
        table: records of networks that were pruned in one way.
    """
    last = table["round"].max()
    kept = table[table["round"].isin([0, last])]
    kept = kept.assign(network=np.where(kept["round"] == 0, "dense", "sparsest"))
    of_task = kept.groupby(["method", "network", "task"])[list(LABELS)].mean()
    means = of_task.groupby(level=["method", "network"]).mean().rename_axis(columns="measure")
    return means.stack().reorder_levels(KEY).sort_index()


def tolerances(table: pd.DataFrame) -> pd.Series:
    """As `headlines`: how large a difference another dense network would explain.

    Args:
        table: records of several chains, pruned in one way.

    Raises:
        InputError: for a single chain.
    """
    chains = [headlines(mine) for _, mine in table.groupby("source_seed")]
    if len(chains) < 2:
        raise InputError(f"`table` must have at least two chains, which tell how networks differ, got {len(chains)}")
    variance = pd.concat(chains, axis=1).var(axis=1)
    return TIMES * np.sqrt(2 * variance.groupby(level=["measure", "method"]).transform("mean"))


def compare(yours: pd.DataFrame, ours: pd.DataFrame, allowed: pd.Series) -> pd.DataFrame:
    """The headline numbers of two computations of a study, side by side.

    Args:
        yours, ours: records of the same runs.
        allowed: as `tolerances` gives them.

    Returns:
        One row a number: `KEY`, `NUMBERS` (the difference is yours minus ours), and `verdict`: "equal", "agrees" or
        "differs".
    """
    found = pd.DataFrame({"yours": headlines(yours), "ours": headlines(ours)})
    found["difference"] = found["yours"] - found["ours"]
    found["tolerance"] = allowed.reindex(found.index)
    agrees = found["difference"].abs() <= found["tolerance"]
    found["verdict"] = np.where(found["difference"] == 0, "equal", np.where(agrees, "agrees", "differs"))
    return found.reset_index()


def equal_records(yours: pd.DataFrame, ours: pd.DataFrame) -> int:
    """How many runs have the same accuracy, ECE and loss, to the bit, in both tables."""
    both = yours.merge(ours[["id", *LABELS, "nll"]], on="id", suffixes=("", "_ours"))
    return int(np.logical_and.reduce([both[name] == both[f"{name}_ours"] for name in (*LABELS, "nll")]).sum())


def in_words(found: pd.DataFrame, equal: int, records: int) -> str:
    """A sentence on what `compare` and `equal_records` found.

    >>> print(in_words(pd.DataFrame({"verdict": ["equal", "agrees", "differs"]}), 10, 12))
    2 of 3 headline numbers agree with ours, within what another dense network would explain; 10 of 12 records are equal to the bit
    """  # noqa: E501 what is printed is one line
    agreeing = int((found["verdict"] != "differs").sum())
    told = f"{agreeing} of {len(found)} headline numbers agree with ours, within what another dense network would explain"
    return f"{told}; {equal} of {records} records are equal to the bit"


def machines(yours: pd.DataFrame, ours: pd.DataFrame) -> list[dict[str, str]]:
    """What two computations of a study were computed with, as the rows of a table."""
    both = {"yours": yours, "ours": ours}
    rows = [
        {"what": name} | {who: ", ".join(sorted(mine[name].unique())) for who, mine in both.items()}
        for name in ("processor", "device", "versions", "commit")
    ]
    return [*rows, {"what": "last record"} | {who: str(mine["finished"].max()) for who, mine in both.items()}]


def known(card: Profile, *, results: Path = RESULTS) -> bool:
    """Whether there is a reference of a profile."""
    return (results / "reference" / f"{card.name}.parquet").exists()


def both(card: Profile, store: Store, *, results: Path = RESULTS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of all runs of a profile that the reader has computed, and ours.

    Args:
        card: the profile.
        store: of the reader's results.
        results: the folder of our results.

    Raises:
        InputError: when there is no reference of the profile, or the reader lacks records.
    """
    reference = Store(results / "reference", card.name)
    if not known(card, results=results):
        raise InputError(
            f"there is no reference {reference.published} to compare {card.name} with; use --profile mini, in a checkout of "
            "the repository"
        )
    yours = store.table(card.runs)
    if len(yours) < len(card.runs):
        raise InputError(
            f"`results` must hold all {len(card.runs)} records of {card.name}, and {store.results} holds {len(yours)}; use: "
            f"vpcore run --profile {card.name}"
        )
    return yours, reference.table(card.runs)


def spread(*, results: Path = RESULTS) -> pd.DataFrame:
    """Our records of three chains of the networks of `mini`, dense and sparsest, for `tolerances`."""
    ways = Store(results, "methods").table(load_profile("methods").grid("ways"))
    ticket = ways["sparsifier"].isna() | ((ways["sparsifier"] == "imp") & (ways["round"] == ways["round"].max()))
    return ways[ticket]
