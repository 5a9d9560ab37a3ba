"""Planning: how often the intervals of a design cover the truth, and what it can see, by simulation from a pilot.

The cost of a cell of chain c and task t, a mean over B budgets and S seeds, is drawn as

    y[c, t] = mu + a[c] + b[t] + g[c, t] + h[c, t] + mean of B S draws of a seed,

normal with the variances of the pilot: `chain`, `task`, `cell` and `seed`. h is the noise of the finite test images, two
accuracies p on N images of a task: variance 2 p (1 - p) / N, shared by all seeds and budgets of the cell, as if the two
networks were right on images that have nothing to do with each other, which overstates it. Tasks differ in N, so the cells
differ in variance; the intervals do not know that. What is known of seeds and tasks comes from one network on real images
(`small`), what is known of chains from three small networks on drawn ones (`methods`, all ways that train what they prune).

    python -c "from vpcore.report.planning import write; write()"     # makes the tables of book/protocol.md
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from vpcore.errors import InputError
from vpcore.report.claims import scarcity
from vpcore.report.hours import core_hours
from vpcore.report.inference import FEW, Factor, components, crossed, verdicts_of
from vpcore.report.pairs import costs
from vpcore.report.paper_hours import paper_hours
from vpcore.report.verdicts import LEVEL, MARGIN, MARGINS, ROUNDING, VERDICTS
from vpcore.study.profile import load_profile
from vpcore.study.run import run_id
from vpcore.study.tables import read_table

CLOSE = 0.005  # a difference of accuracy that chooses nothing
ROOT = Path(__file__).resolve().parents[2]
ACCURACY = 0.3  # of a task, for the noise of its test images: what visual prompting reaches in the pilot
# test images of CIFAR-10, EuroSAT and hand signs (the control tasks), GTSRB, Oxford Pets, Flowers-102, Fashion-MNIST,
# Caltech-101, digits, and last SVHN, which is at chance
IMAGES = (1000, 1000, 411, 3980, 735, 1224, 1000, 1094, 1000, 1000)
STUDIES = 4000  # that are simulated; the standard error of a coverage is a third of a point
SPARSE, DENSER = 2, 1  # rounds of the pilot at densities 0.16 and 0.4
OF_CHAINS = 3  # the round of `methods` nearest to 0.16, at 0.125
GRIDS = ("ways", "quantization")  # of `methods`: three chains and one seed, one chain and three seeds
UNTRAINED = ("magnitude", "magnitude-bn", "reconstruction")


@dataclass(frozen=True)
class Components:
    """Standard deviations of a cost, in its unit."""

    chain: float
    task: float
    cell: float  # what a chain does on one task alone
    seed: float  # of a single run


@dataclass(frozen=True)
class Design:
    """How many of each; a cell is a mean over budgets and seeds, and the first chain may have more seeds than the others."""

    chains: int
    tasks: int
    budgets: int = 1
    seeds: int = 1
    deep_seeds: int | None = None  # of the first chain

    def __str__(self) -> str:
        return f"{self.chains} x {self.tasks}"

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """Of each cell, its chain and its task."""
        chain, task = np.divmod(np.arange(self.chains * self.tasks), self.tasks)
        return tuple(chain.tolist()), tuple(task.tolist())


FAMILY = 6  # claims of the primary family
# Without the task that is at chance. Five tasks have four budgets, one three, three two: 1/B is 1/3 in the mean over tasks.
PLANNED = Design(8, 9, 3, deep_seeds=3)
QUANTIZED = Design(2, 9, 3)
CONTROL = Design(2, 3, 2)  # a control network beside its twin
SMALL, WAYS = Design(1, 7, 2, 5), Design(3, 7, 2, 3)  # of the book's other chapters
DESIGNS = (SMALL, WAYS, CONTROL, QUANTIZED, Design(8, 10, 3), PLANNED)


def pilot_components(of_tasks: pd.DataFrame, of_chains: pd.DataFrame, of_seeds: pd.DataFrame, column: str) -> Components:
    """The components of a cost in the pilot.

    Args:
        of_tasks: costs of one chain, with several seeds a task and budget: tells of seeds and tasks.
        of_chains: costs of several chains, one seed each: tells of chains, and of chains on one task.
        of_seeds: costs of one of those chains with several seeds: how much of that is the seed.
        column: the cost.
    """
    cells = of_tasks.groupby(["task", "budget"])[column]
    seed = cells.var().mean()
    task = cells.mean().groupby("task").mean().var() - (seed / of_tasks.groupby("task")[column].count()).mean()
    found = []
    for _, mine in of_chains.groupby("sparsifier"):
        y = mine.groupby(["source_seed", "task"])[column].mean()
        chains, tasks = (tuple(pd.factorize(y.index.get_level_values(name))[0].tolist()) for name in y.index.names)
        found.append(components(y.to_numpy()[None], (chains, tasks), tasks)[0])
    chain, _, rest = np.mean(found, axis=0)
    noise = of_seeds.groupby(["task", "budget"])[column].var().mean()
    cell = rest - noise / of_chains["budget"].nunique()
    return Components(*(float(np.sqrt(max(each, 0.0))) for each in (chain, task, cell, seed)))


def simulated(
    parts: Components, design: Design, *, images: bool = True, heavy: bool = False, studies: int = STUDIES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Studies of a design whose true mean cost is 0.

    Args:
        parts: the components.
        design: how many of each.
        images: whether the test images are finite.
        heavy: draw tasks and chains from t(4), with the same variance, instead of the normal distribution.
        studies: R.
        seed: of the draws.

    Returns:
        (R, cells) costs, and (R,) what an interval should cover: 0, or with fewer than three chains the mean cost of these.
    """
    rng = np.random.default_rng(seed)
    (chain, task), shape = design.factors, (studies, design.chains * design.tasks)

    def draw(number: int, sd: float) -> np.ndarray:
        values = rng.standard_t(4, (studies, number)) / np.sqrt(2) if heavy else rng.standard_normal((studies, number))
        return values * sd

    of_chain = draw(design.chains, parts.chain)
    values = of_chain[:, chain] + draw(design.tasks, parts.task)[:, task]
    seeds = np.where(np.array(chain) == 0, design.deep_seeds or design.seeds, design.seeds)
    values += rng.standard_normal(shape) * np.hypot(parts.cell, parts.seed / np.sqrt(seeds * design.budgets))
    if images:
        of_task = np.array(IMAGES)[list(task)]
        values += rng.standard_normal(shape) * np.sqrt(2 * ACCURACY * (1 - ACCURACY) / of_task)
    return values, of_chain.mean(axis=1) if design.chains < FEW else np.zeros(studies)


def coverage(parts: Components, design: Design, *, heavy: bool = False, studies: int = STUDIES, seed: int = 0) -> float:
    """How often the nominal 95 % interval covers the truth."""
    values, truth = simulated(parts, design, heavy=heavy, studies=studies, seed=seed)
    mean, variance, df = crossed(values, *design.factors)
    return float((np.abs(mean - truth) <= stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance)).mean())


def power(
    parts: Components,
    design: Design,
    effect: float,
    *,
    margin: float,
    level: float = LEVEL,
    studies: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """How often a design that measures a true cost gives each verdict."""
    values, _ = simulated(parts, design, studies=studies, seed=seed)
    seen = verdicts_of(values + effect, *design.factors, margin=margin, level=level)
    return {name: seen.count(name) / studies for name in VERDICTS}


def detectable(parts: Components, design: Design, *, level: float = LEVEL, seed: int = 0) -> float:
    """The effect that the interval of a typical study of this design would exclude zero for, with 80 % power."""
    values, _ = simulated(parts, design, studies=1000, seed=seed)
    _, variance, df = crossed(values, *design.factors)
    reach = stats.t.ppf((1 + level) / 2, df) + stats.t.ppf(0.8, df)
    return float(np.median(np.sqrt(variance) * reach))


def pilot() -> dict[str, tuple[str, Components]]:
    """Claim -> the column of its cost, and the components of that in the published tables `small` and `methods`."""
    small, methods = (read_table(ROOT / "results" / f"{name}.parquet") for name in ("small", "methods"))
    card = load_profile("methods")
    ways, bits = (methods[methods["id"].isin(set(map(run_id, card.grid(name))))] for name in GRIDS)
    real, trained, seeds = costs(small), costs(ways), costs(bits[bits["weight_bits"] == 32])
    trained = trained[~trained["sparsifier"].isin(UNTRAINED)]

    def of(column: str, method: str = "vp", *, gap: bool = False, sparse: int = SPARSE) -> tuple[str, Components]:
        tables: list[pd.DataFrame] = []
        for table, number in ((real, sparse), (trained, OF_CHAINS), (seeds, OF_CHAINS)):
            mine = table[(table["method"] == method) & (table["round"] == number)]
            gaps = [scarcity(each, column, round=number) for _, each in mine.groupby("sparsifier")] if gap else []
            tables.append(pd.concat(gaps) if gap else mine)
        return column, pilot_components(tables[0], tables[1], tables[2], column)

    return {
        "C1, density 0.16": of("accuracy_loss"),
        "C1, density 0.4": of("accuracy_loss", sparse=DENSER),
        "C2, points": of("accuracy_loss", gap=True),
        "C2, share": of("lost_share", gap=True),
        "C3, VP": of("ece_rise"),
        "C3, LP": of("ece_rise", "lp"),
    }


def plan(claims: dict[str, tuple[str, Components]]) -> pd.DataFrame:
    """What the planned study can see, for each claim: one row a claim, costs in percentage points.

    Quantized networks are taken to vary as sparse ones do.
    """
    rows = []
    quantized = {"C5, two chains": claims["C1, density 0.16"], "C6, two chains": claims["C3, VP"]}
    designs = {"C2": dataclasses.replace(PLANNED, budgets=1), "C5": QUANTIZED, "C6": QUANTIZED}  # an end is one budget
    for claim, (column, parts) in (claims | quantized).items():
        design = designs.get(claim[:2], PLANNED)
        margin = MARGINS.get(column, MARGIN)
        at = {effect: power(parts, design, effect * margin, margin=margin) for effect in (0, 1, 2, 3)}
        rows.append(
            {
                "claim": claim,
                **{f"sd {name}": f"{100 * getattr(parts, name):.1f}" for name in ("chain", "task", "cell", "seed")},
                "margin": f"{100 * margin:.0f}",
                "detectable": f"{100 * detectable(parts, design):.1f}",
                "detectable, Holm": f"{100 * detectable(parts, design, level=1 - (1 - LEVEL) / FAMILY):.1f}",
                "no relevant effect, if 0": f"{at[0]['no relevant effect']:.0%}",
                **{f"supported, if {k} margin{'s' * (k > 1)}": f"{at[k]['supported']:.0%}" for k in (1, 2, 3)},
            }
        )
    return pd.DataFrame(rows)


def coverages(claims: dict[str, tuple[str, Components]]) -> pd.DataFrame:
    """How often nominal 95 % intervals cover the truth: one row a design, one column a claim."""
    rows = []
    for design in DESIGNS:
        row = {"chains x tasks": str(design) + (", deep chain of 3 seeds" if design.deep_seeds else "")}
        for claim, (_, parts) in claims.items():
            row[claim] = f"{coverage(parts, design):.1%}"
        rows.append(row)
    return pd.DataFrame(rows)


def rates(table: pd.DataFrame) -> tuple[dict[int, float], int]:
    """The rates of the prompts by budget, and the epochs with all images, that the rule of the protocol chooses.

    Args:
        table: the records of the profile `pilot`: two networks, three tasks.

    Returns:
        Budget -> rate, the smallest whose mean accuracy on validation images is at most half a point below the highest; and
        the fewest epochs whose mean is at most half a point below that of the most, all at the larger rate that there is.

    Raises:
        InputError: when a rate, or a number of epochs, lacks runs that another has: their means would not compare.
    """
    prompts = table[table["method"] == "vp"]
    runs = [name for name in ("source_seed", "round", "task", "seed") if name in prompts]
    for budget, mine in prompts.groupby("budget", dropna=False):
        seen = mine.groupby(["lr", "epochs"])[runs].apply(lambda part: frozenset(map(tuple, part.to_numpy())))
        if seen.nunique() > 1:
            raise InputError(
                f"`table` must hold the same runs at every rate and number of epochs; at the budget {budget} it has "
                f"{dict(seen.map(len))}: run what is missing with `vpcore run --profile pilot`"
            )
    few = prompts[prompts["budget"].notna()].groupby(["budget", "lr"])["val_accuracy"].mean()
    chosen = {int(budget): _least(mean.droplevel("budget"), mean.max()) for budget, mean in few.groupby("budget")}
    whole = prompts[prompts["budget"].isna()]
    by_epochs = whole[whole["lr"] == whole["lr"].max()].groupby("epochs")["val_accuracy"].mean()
    return chosen, int(_least(by_epochs, by_epochs[by_epochs.index.max()]))


def _least(accuracy: pd.Series, best: float) -> float:
    """The smallest label whose accuracy is at most half a point below `best`."""
    return float(accuracy.index[accuracy >= best - CLOSE - ROUNDING].min())


def write(folder: Path = ROOT / "book") -> None:
    """Make the tables of the page on the protocol, power.csv, coverage.csv and core_hours.csv, and paper_hours.csv."""
    paper_hours().to_csv(folder / "paper_hours.csv", index=False)
    core_hours().to_csv(folder / "core_hours.csv", index=False)
    claims = pilot()
    plan(claims).to_csv(folder / "power.csv", index=False)
    coverages(claims).to_csv(folder / "coverage.csv", index=False)
