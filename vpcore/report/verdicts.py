"""Verdicts: what an interval says of a claim, by a rule that is stated before the interval is seen.

A claim says that compression raises a cost. An effect inside the margin (-d, d) is too small to matter; an end of an
interval nearer to zero than d/20 is printed as zero and counts as zero. For an interval [low, high]:

    whole interval inside (-d, d)          no relevant effect (its sign may be known; it does not matter)
    low above zero, not wholly inside      supported
    high below zero, not wholly inside     contradicted
    otherwise                              inconclusive; `detectable` is the effect that would have been seen
    compressed networks at chance          not testable: at chance (of calibration: a guess has none to lose)

A claim that there is no harm (C6) is supported when the interval lies below d, and contradicted where harm is supported.
That no harm was found says something only where harm would have been found (assay sensitivity: ICH E10, 2000). Where the
control that must find harm did not, what would be no relevant effect is inconclusive, and so is the support of no harm
unless the cost has fallen.
Where several claims are one family, `holm` widens their intervals (Holm 1979): the claim with the smallest p-value is held
to alpha/m, the next to alpha/(m-1), and so on until the first that is inconclusive. A claim's p-value is the smallest
alpha at which its interval gives another verdict than inconclusive. Equivalence by an interval inside a margin is that of
Schuirmann (1987), with the whole 95 % interval and not 90 %.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vpcore.errors import InputError

LEVEL = 0.95
PRINTED_ZERO = 1 / 20  # of the margin: with a margin of one point, what is printed as 0.0 points
# column of a cost -> the largest effect that is too small to matter; the reasons are in book/protocol.md
MARGINS = {
    "relative_loss": 0.05,
    "lost_share": 0.05,
    "nll_rise": 0.05,
    "nll_temperature_rise": 0.05,
    "legacy_ece_rise": 5e-4,
}
MARGIN = 0.01  # of accuracy and of all other costs: one percentage point
ROUNDING = 1e-9  # of means of floats: a difference of exactly a bound is at most that bound

SUPPORTED, CONTRADICTED, NO_EFFECT = "supported", "contradicted", "no relevant effect"
INCONCLUSIVE, NOT_TESTABLE = "inconclusive", "not testable: at chance"
NO_TICKET = "not testable: no ticket keeps up"  # C4, see `claims.primary`
VERDICTS = (SUPPORTED, CONTRADICTED, NO_EFFECT, INCONCLUSIVE, NOT_TESTABLE)


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    >>> e = Estimate(0.052, 0.021, 0.083, n=40, se=0.0137, df=9, scope="other tasks, on this chain")
    >>> f"{e.points():.1f} points"
    '5.2 (2.1 to 8.3) points'
    >>> e.numbers("loss")["loss_verdict"]
    'supported'

    Attributes:
        mean, low, high: in the unit of what was averaged.
        n: number of values behind it.
        se, df: standard error, and the degrees of freedom of its t-distribution; NaN and 0 where there is no interval.
        level: of the interval.
        scope: for what the interval speaks, see `inference.estimate`.
        margin: effects below it are too small to matter.
        guesses: whether it is a rise of a measure of calibration in networks most of which are at chance.
        sensitive: whether the study would have found harm, so that finding none says something.
    """

    mean: float
    low: float
    high: float
    n: int
    se: float = np.nan
    df: float = 0.0
    scope: str = ""
    level: float = LEVEL
    margin: float = MARGIN
    guesses: bool = False
    sensitive: bool = True

    def points(self) -> Estimate:
        """The same in percentage points."""
        return self._times(100)

    def margins(self) -> Estimate:
        """The same in margins, so that costs of different units can stand side by side."""
        return self._times(1 / self.margin)

    def _times(self, factor: float) -> Estimate:
        scaled = {name: factor * getattr(self, name) for name in ("mean", "low", "high", "se", "margin")}
        return dataclasses.replace(self, **scaled)

    def at(self, level: float) -> Estimate:
        """The same with an interval of another level."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.se if self.df else 0.0
        return dataclasses.replace(self, low=self.mean - half, high=self.mean + half, level=level)

    def detectable(self, *, power: float = 0.8) -> float:
        """The smallest effect whose interval, of the same level, would exclude zero with this probability; or NaN."""
        reach = stats.t.ppf((1 + self.level) / 2, self.df) + stats.t.ppf(power, self.df) if self.df else np.nan
        return float(self.se * reach)

    def numbers(self, key: str, *, harmless: bool = False) -> dict[str, float | int | str]:
        """For the prose: KEY, KEY_low, KEY_high, KEY_n, KEY_scope, KEY_margin, KEY_verdict; KEY_detectable if known."""
        found: dict[str, float | int | str] = {key: self.mean, f"{key}_low": self.low, f"{key}_high": self.high}
        found |= {f"{key}_n": self.n, f"{key}_scope": self.scope, f"{key}_margin": self.margin}
        if self.df:
            found[f"{key}_detectable"] = self.detectable()
        return found | {f"{key}_verdict": verdict(self, harmless=harmless)}

    def __format__(self, spec: str) -> str:
        if not self.df and self.low == self.high:
            return f"{self.mean:{spec}} (no interval)"
        return f"{self.mean:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def verdict(e: Estimate, *, harmless: bool = False) -> str:
    """What an interval says of the claim that compression raises this cost, or, if `harmless`, that it does not.

    >>> verdict(Estimate(0.05, 0.02, 0.08, 9, 0.013, 8)), verdict(Estimate(-0.1, -0.2, -0.05, 9, 0.03, 8))
    ('supported', 'contradicted')
    >>> verdict(Estimate(0.01, -0.02, 0.04, 9, 0.013, 8)), verdict(Estimate(0.002, 0.001, 0.003, 9, 0.0004, 8))
    ('inconclusive', 'no relevant effect')
    >>> verdict(Estimate(0.03, 0.00007, 0.06, 9, 0.013, 8))  # printed as 0.0 to 6.0 points
    'inconclusive'
    """
    if e.guesses:
        return NOT_TESTABLE
    if not e.df and e.low == e.high:  # a single value
        return INCONCLUSIVE
    zero = PRINTED_ZERO * e.margin
    small = max(-e.low, e.high) < e.margin
    harm, gain = e.low > zero and not small, e.high < -zero and not small
    if harmless:
        return CONTRADICTED if harm else SUPPORTED if gain or (e.sensitive and e.high < e.margin) else INCONCLUSIVE
    nothing = NO_EFFECT if e.sensitive else INCONCLUSIVE
    return nothing if small else SUPPORTED if harm else CONTRADICTED if gain else INCONCLUSIVE


def p_value(e: Estimate, *, harmless: bool = False) -> float:
    """The smallest alpha at which the interval of level 1 - alpha gives a verdict other than inconclusive; 1 without one.

    It is that of a study that is sensitive.
    """
    if e.guesses or not e.df:
        return 1.0
    # how far the interval may reach to exclude zero, or to stay inside the margin
    reach = max(abs(e.mean) - PRINTED_ZERO * e.margin, e.margin - abs(e.mean))
    if harmless:
        reach = max(e.mean - PRINTED_ZERO * e.margin, e.margin - e.mean)
    if e.se == 0:
        return 0.0 if reach > 0 else 1.0
    return float(min(1.0, 2 * stats.t.sf(reach / e.se, e.df)))


@dataclass(frozen=True)
class Judged:
    """A claim of a family: its estimate with the interval that it is held to, its adjusted p-value, and the verdict."""

    estimate: Estimate
    p_adjusted: float
    verdict: str


def holm(
    family: dict[str, Estimate], *, harmless: tuple[str, ...] = (), untested: int = 0, alpha: float = 1 - LEVEL
) -> dict[str, Judged]:
    """Verdicts on a family of claims that share one probability of error (Holm 1979).

    Args:
        family: claim -> its estimate.
        harmless: the claims that say that there is no harm.
        untested: further claims of the family, which could not be tested and count all the same.
        alpha: probability that any verdict other than "inconclusive" is wrong.

    Returns:
        The claims in their order; a claim's interval has level 1 - alpha / (m - i), i being the number of claims that were
        decided before it. A verdict that is not given because the study is not sensitive counts as decided.

    >>> family = {"c1": Estimate(0.05, 0.03, 0.07, 9, 0.01, 20), "c3": Estimate(0.022, 0.001, 0.043, 9, 0.01, 20)}
    >>> {claim: (judged.estimate.level, judged.verdict) for claim, judged in holm(family).items()}
    {'c1': (0.975, 'supported'), 'c3': (0.95, 'supported')}
    >>> holm(family | {"c4": Estimate(0.01, -0.01, 0.03, 9, 0.01, 20)})["c3"].verdict  # three claims: held to 97.5 %
    'inconclusive'
    """
    if unknown := set(harmless) - set(family):
        raise InputError(f"`harmless` must name claims of the family, {', '.join(family)}, got {', '.join(sorted(unknown))}")
    p = {claim: p_value(e, harmless=claim in harmless) for claim, e in family.items()}
    judged, size, adjusted = {}, len(family) + untested, 0.0
    left = size
    for rank, claim in enumerate(sorted(family, key=p.__getitem__)):
        adjusted = max(adjusted, min(1.0, (size - rank) * p[claim]))
        e = family[claim].at(1 - alpha / left) if family[claim].df else family[claim]
        judged[claim] = Judged(e, adjusted, verdict(e, harmless=claim in harmless))
        left -= verdict(dataclasses.replace(e, sensitive=True), harmless=claim in harmless) != INCONCLUSIVE
    return {claim: judged[claim] for claim in family}
