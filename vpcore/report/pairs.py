"""Pairs: what a run costs against its counterpart, everything else being equal.

For equal task, budget and seed the dense and the compressed network see the same training images, start from the same prompt
and break ties alike, so a cost is a difference of two runs,

    loss of accuracy = accuracy(dense) - accuracy(compressed)       rise of m = m(compressed) - m(dense)

for every measure m of which more is worse (`METRICS`), both positive when compression harms. Two runs are a pair when they
agree in every field of `Run` that does not say how the network was compressed (`NETWORK`); another dense network, another
recipe or another prompt makes another pair.

A budget that a class cannot fill trains on the same images as a smaller one: of budgets with equally many images the
smallest counts, once. A network that guesses has no calibration to lose: pairs say where a run is at chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vpcore.calibration.all_metrics import METRICS
from vpcore.errors import InputError
from vpcore.study.run import FACTS, NETWORK, fields_of

PAIR = tuple(name for name in FACTS if name not in NETWORK)  # what the two runs of a pair share
ALL = "all"  # the budget of all training images
AT_CHANCE = 1.645  # standard errors above chance that an accuracy must reach to be more than a guess (one-sided, 5 %)


def worse(table: pd.DataFrame) -> list[str]:
    """The measures of a table of which more is worse, each also after temperature scaling where the table has that."""
    names = [name for name, metric in METRICS.items() if metric.worse] + ["legacy_ece"]
    return [name for each in names for name in (each, f"{each}_temperature") if name in table]


def costs(table: pd.DataFrame, *, against: str = "dense", also: Sequence[str] = ()) -> pd.DataFrame:
    """What each compressed run costs against its counterpart.

    Args:
        table: records of transfers, one row a run, with the fields of `Run` that vary, `accuracy`, `classes` and the
            measures. Records of the method "source" among them tell which networks are at chance on their own task.
        against: the counterpart: "dense", the dense float network of the same chain, or "float", the network of the same
            round before it was quantized.
        also: further columns to hand on, as far as the table has them: NAME of the compressed run, NAME_dense of its
            counterpart.

    Returns:
        One row a compressed run that has its counterpart: the fields of `Run` and `density` as far as the table has them;
        `accuracy_loss`; `relative_loss`, the share of the counterpart's accuracy above chance that is lost (NaN where that
        is below 2 points); NAME_rise for every measure of `worse`; `above_chance`, what the counterpart has above chance;
        and `at_chance`, whether the compressed run, or its network on its own task, is no better than a guess.

    Raises:
        InputError: when a counterpart occurs twice, or no compressed run has one, or records of one network and method were
            measured on different tickets.
    """
    if against not in ("dense", "float"):
        raise InputError(f'`against` must be "dense" or "float", got {against!r}')
    runs = _once(_with_budgets(table[table["method"] != "source"]))
    _check_networks(runs)
    whole = pd.Series(True, index=runs.index)
    for name in ("weight_bits", "activation_bits"):
        whole &= runs[name].fillna(32) == 32 if name in runs else True
    shared = [name for name in PAIR if name in runs]
    if against == "dense":
        whole &= runs["round"] == 0
    else:
        shared += [name for name in ("sparsifier", "scope", "part", "round") if name in runs]
    dense, compressed = runs[whole], runs[~whole]
    # a field without a value in every dense run says how networks are compressed, such as the epochs of fine-tuning
    shared = [name for name in shared if dense.empty or dense[name].notna().any() or runs[name].isna().all()]
    _check_once(dense, shared, what=f"{against} runs")
    measures, also = worse(runs), [name for name in also if name in runs]
    reference = dense[list(dict.fromkeys([*shared, "accuracy", "classes", *measures, *also]))]
    pairs = compressed.merge(reference, on=shared, suffixes=("", "_dense"))
    if len(compressed) and pairs.empty:
        raise InputError(
            f"`table` must hold the {against} run of each compressed one, equal in {', '.join(shared)}; none has its "
            "counterpart: add the dense network to the grid, or run what is missing"
        )
    chance = 1 / pairs["classes_dense"].map(len).astype(float)
    above, loss = pairs["accuracy_dense"] - chance, pairs["accuracy_dense"] - pairs["accuracy"]
    kept = [name for name in (*PAIR, *NETWORK, "density", "saturated") if name in pairs]
    kept += [name for each in also for name in (each, f"{each}_dense")]
    return pairs[kept].assign(
        accuracy_loss=loss,
        relative_loss=(loss / above).where(above > 0.02),
        **{f"{name}_rise": pairs[name] - pairs[f"{name}_dense"] for name in measures},
        above_chance=above,
        at_chance=_guesses(pairs, pairs["accuracy"], chance) | _broken(table, pairs),
    )


def effects(table: pd.DataFrame, field: str, base: object, *, along: Sequence[str] = ()) -> pd.DataFrame:
    """What another value of one field changes, everything else being equal: the network, the task, the images, the draws.

    Args:
        table: records of transfers.
        field: a column, such as "mapping".
        base: the value that the others are compared with.
        along: fields that go along with it and need not be equal, such as the epochs of another method.

    Returns:
        One row a run with another value: the other fields of `Run` that the table has, `field`, `accuracy_gain`, and
        NAME_rise for every measure of `worse`, each the run minus its counterpart.

    Raises:
        InputError: when no run has the base value, or one occurs twice, or records of one network and method were measured
            on different tickets.
    """
    runs = _with_budgets(table)
    _check_networks(runs)
    key = [name for name in (*PAIR, *NETWORK) if name in runs and name not in (field, *along)]
    measured = ["accuracy", *worse(runs)]
    reference = runs[runs[field] == base]
    if reference.empty:
        raise InputError(f"`base` must be a value of {field} in the table, got {base!r}")
    _check_once(reference, key, what=f"runs with {field} {base!r}")
    pairs = runs[runs[field] != base].merge(reference[[*key, *measured]], on=key, suffixes=("", "_base"))
    changes = {
        "accuracy_gain" if name == "accuracy" else f"{name}_rise": pairs[name] - pairs[f"{name}_base"] for name in measured
    }
    return pairs[[*key, field]].assign(**changes)


def budgets(differences: pd.DataFrame) -> list[int | str]:
    """The budgets that occur, smallest first, "all" last."""
    return sorted(differences["budget"].unique(), key=lambda budget: float("inf") if budget == ALL else budget)


def check_unmixed(differences: pd.DataFrame, axes: Sequence[str]) -> None:
    """Refuse a table in which something varies that a mean over it does not ask about.

    A mean is taken over tasks, budgets, seeds and chains (`source_seed`). What tells compressed networks apart, the method,
    and labels must have one value; another field of a run may go with the task and the budget (the batch, say), but must
    have one value in each. A field that a run does not depend on has no value in its record, and is not in the way.

    Args:
        differences: costs or effects.
        axes: further columns over whose values the mean is meant to be taken.

    Raises:
        InputError: naming the first column that varies and its values.

    >>> check_unmixed(pd.DataFrame({"task": ["a", "a"], "budget": [1, 1], "sparsifier": ["imp", "rigl"]}), [])
    Traceback (most recent call last):
    ...
    vpcore.errors.InputError: the mean would mix sparsifier 'imp', 'rigl'; select one, or name it in `axes`
    """
    asked = {"task", "budget", "seed", "source_seed", "scarce_budget", "plenty_budget", *axes}
    labels = [name for name in differences if pd.api.types.is_string_dtype(differences[name]) and name not in PAIR]
    for name in dict.fromkeys(("method", *NETWORK, *labels)):
        if name in differences and name not in asked:
            _refuse_mixed(name, differences[name])
    for name in PAIR:
        if name in differences and name not in asked and differences[name].nunique() > 1:
            mixed = differences.groupby(["task", "budget"])[name].nunique() > 1
            if mixed.any():
                _refuse_mixed(name, differences[name])


def _refuse_mixed(name: str, values: pd.Series) -> None:
    if values.nunique() > 1:
        listed = ", ".join(repr(value) for value in sorted(values.dropna().unique().tolist(), key=_by_kind))
        raise InputError(f"the mean would mix {name} {listed}; select one, or name it in `axes`")


def _by_kind(value: object) -> tuple[bool, object]:
    """Numbers before texts."""
    return isinstance(value, str), value


def _check_once(runs: pd.DataFrame, key: list[str], *, what: str) -> None:
    """Refuse runs that the key does not tell apart, naming the columns that would."""
    twice = runs[runs.duplicated(key, keep=False)]
    if twice.empty:
        return
    plain = [name for name in twice if name not in key and twice[name].map(pd.api.types.is_scalar).all()]
    names = [name for name in plain if name in NETWORK and twice[name].nunique(dropna=False) > 1]
    told = "; ".join(f"{name} {', '.join(map(repr, twice[name].unique().tolist()))}" for name in names)
    raise InputError(
        f"`table` must hold one chain of tickets with each run once, but some {what} occur twice"
        + (f" (they differ in {told}); select one" if told else "; drop the copies")
    )


def _check_networks(runs: pd.DataFrame) -> None:
    """Refuse records that should be of one network, with or without quantization after training, and are of several."""
    if "ticket" not in runs:
        return
    runs = runs[runs["ticket"].notna()]
    runs = runs[runs["quant_training"] != "lsq"] if "quant_training" in runs else runs  # a ticket for each number of bits
    key = ["method", *(name for name in fields_of("training", "chain", "round") if name in runs)]
    for network, digests in runs.groupby(key, dropna=False)["ticket"].unique().items():
        if len(digests) == 1:
            continue
        told = ", ".join(
            f"{name} {value}" for name, value in zip(key, network, strict=True) if name in ("source_seed", "round")
        )
        raise InputError(
            f"`table` must hold records of one network with {told}, but some are of the ticket {digests[0]} and some of "
            f"{digests[1]}; compute the runs on one of them again"
        )


def _with_budgets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "all" as the budget of all images."""
    return table.assign(budget=table["budget"].astype(object).where(table["budget"].notna(), ALL))


def _once(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the runs whose budget gives as many training images as a smaller one: the same images count once."""
    if "train_images" not in runs or runs.empty:
        return runs
    goes_with_the_budget = ("budget", "batch", "epochs", "lr")
    same = [name for name in (*PAIR, *NETWORK, "train_images") if name in runs and name not in goes_with_the_budget]
    size = runs["budget"].replace(ALL, np.inf).astype(float)
    return runs[size == size.groupby([runs[name] for name in same], dropna=False).transform("min")]


def _guesses(pairs: pd.DataFrame, accuracy: pd.Series, chance: pd.Series) -> pd.Series:
    """Which accuracies are no better than a guess, given how many images they were measured on."""
    return accuracy <= chance + AT_CHANCE * np.sqrt(chance * (1 - chance) / pairs.get("images", np.inf))


def _broken(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Which pairs have a compressed network that is at chance on its own task, as far as the table has its record."""
    sources = table[table["method"] == "source"]
    if sources.empty or "brier_uncertainty" not in sources:
        return pd.Series(False, index=pairs.index)
    chance = 1 - sources["brier_uncertainty"]  # of classes that are equally frequent, 1 / S
    lost = sources[_guesses(sources, sources["accuracy"], chance)]
    of_transfer = {"method", "task", "seed", "test_per_class", "budget"}
    key = [name for name in (*PAIR, *NETWORK) if name in pairs and name not in of_transfer and sources[name].notna().any()]
    found = pairs[key].merge(lost[key].drop_duplicates(), on=key, how="left", indicator="found")["found"]
    return pd.Series(found.eq("both").to_numpy(), index=pairs.index)
