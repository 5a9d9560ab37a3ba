import numpy as np
import pytest
from scipy import stats

from vpcore import InputError
from vpcore.report.verdicts import MARGIN, MARGINS, Estimate, holm, p_value, verdict


def of(mean: float, se: float, *, df: float = 20, **more: object) -> Estimate:
    return Estimate(mean, mean, mean, 40, se, df, **more).at(0.95)


@pytest.mark.parametrize(
    ("low", "high", "harm", "harmless"),
    [
        (0.02, 0.08, "supported", "contradicted"),
        (0.005, 0.03, "supported", "contradicted"),
        (0.00007, 0.06, "inconclusive", "inconclusive"),  # printed as 0.0 to 6.0
        (0.0006, 0.06, "supported", "contradicted"),  # printed as 0.1 to 6.0
        (0.002, 0.009, "no relevant effect", "supported"),  # harm, and too little to matter
        (-0.009, 0.009, "no relevant effect", "supported"),
        (-0.02, 0.009, "inconclusive", "supported"),
        (-0.02, 0.02, "inconclusive", "inconclusive"),
        (-0.08, -0.02, "contradicted", "supported"),
        (-0.06, -0.00007, "inconclusive", "supported"),
    ],
)
def test_verdicts(low: float, high: float, harm: str, harmless: str) -> None:
    e = Estimate((low + high) / 2, low, high, 40, (high - low) / 4, 20)
    assert verdict(e) == harm
    assert verdict(e, harmless=True) == harmless
    assert verdict(e.points()) == harm  # whatever the unit


def test_margins_are_small() -> None:
    assert all(0 < margin <= 0.05 for margin in (MARGIN, *MARGINS.values()))
    assert MARGINS["nll_temperature_rise"] == MARGINS["nll_rise"]  # of one metric, before and after recalibration


def test_a_single_value_and_a_guess_prove_nothing() -> None:
    assert verdict(Estimate(0.3, 0.3, 0.3, 1)) == "inconclusive"
    assert f"{Estimate(0.3, 0.3, 0.3, 1):.1f}" == "0.3 (no interval)"
    for mean in (-0.2, 0.0, 0.2):
        assert verdict(of(mean, 0.01, guesses=True)) == "not testable: at chance"
        assert verdict(of(mean, 0.01, guesses=True), harmless=True) == "not testable: at chance"


@pytest.mark.parametrize(
    ("low", "high", "harm", "harmless"),
    [
        (0.02, 0.08, "supported", "contradicted"),
        (0.002, 0.009, "inconclusive", "inconclusive"),  # no relevant effect, and supported, in a study that is sensitive
        (-0.009, 0.009, "inconclusive", "inconclusive"),
        (-0.02, 0.009, "inconclusive", "inconclusive"),
        (-0.08, -0.02, "contradicted", "supported"),  # that ECE has fallen was seen
    ],
)
def test_finding_nothing_says_nothing_where_harm_would_not_have_been_found(
    low: float, high: float, harm: str, harmless: str
) -> None:
    e = Estimate((low + high) / 2, low, high, 40, (high - low) / 4, 20, sensitive=False)
    assert verdict(e) == harm
    assert verdict(e, harmless=True) == harmless


@pytest.mark.parametrize("harmless", [False, True])
def test_a_p_value_is_the_alpha_at_which_the_verdict_turns(harmless: bool) -> None:
    rng = np.random.default_rng(0)
    for mean, se, df in zip(rng.normal(0, 0.02, 200), rng.uniform(0.002, 0.02, 200), rng.integers(1, 30, 200), strict=True):
        e = of(mean, se, df=float(df))
        p = p_value(e, harmless=harmless)
        if p < 0.99:
            assert verdict(e.at(1 - p * 1.01), harmless=harmless) != "inconclusive"
        if p > 1e-6:
            assert verdict(e.at(1 - p * 0.99), harmless=harmless) == "inconclusive"


def test_costs_without_any_spread_are_certain() -> None:
    for mean, harmless, p in ((0.2, False, 0), (0.0, False, 0), (0.2, True, 0), (0.01, False, 0), (-0.2, True, 0)):
        assert p_value(of(mean, 0.0), harmless=harmless) == p
    assert p_value(of(0.0003, 0.0, margin=0.0003)) == 0  # it is above what is printed as zero
    assert p_value(of(0.0, 0.0, margin=0.0)) == 1


def test_the_detectable_effect_is_seen_with_the_power_it_says() -> None:
    """Against the noncentral t-distribution."""
    for df in (5.0, 9.0, 20.0):
        e = of(0.0, 0.01, df=df)
        ratio, critical = e.detectable() / e.se, stats.t.ppf(0.975, df)
        assert stats.nct.sf(critical, df, ratio) == pytest.approx(0.8, abs=0.03)
        wider, critical = e.at(0.99), stats.t.ppf(0.995, df)
        assert stats.nct.sf(critical, df, wider.detectable() / e.se) == pytest.approx(0.8, abs=0.05)
    assert np.isnan(Estimate(0.3, 0.3, 0.3, 1).detectable())


def test_holm_is_holm() -> None:
    """Adjusted p-values against a loop over the definition (Holm 1979)."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        family = {
            f"c{i}": of(m, s)
            for i, (m, s) in enumerate(zip(rng.normal(0, 0.04, 6), rng.uniform(0.005, 0.02, 6), strict=True))
        }
        p = sorted((p_value(e), name) for name, e in family.items())
        expected = {name: min(1.0, max((6 - j) * p[j][0] for j in range(i + 1))) for i, (_, name) in enumerate(p)}
        judged = holm(family)
        assert list(judged) == list(family)
        for name, one in judged.items():
            assert one.p_adjusted == pytest.approx(expected[name])
            assert (one.verdict != "inconclusive") == (expected[name] <= 0.05)
            assert one.verdict == verdict(family[name].at(one.estimate.level))


def test_a_verdict_that_is_not_given_does_not_stop_the_steps_of_holm() -> None:
    family = {"c1": of(0.05, 0.021), "c5": of(0.0, 0.001)}
    given = holm(family)
    assert {name: one.verdict for name, one in given.items()} == {"c1": "supported", "c5": "no relevant effect"}
    doubted = holm(family | {"c5": of(0.0, 0.001, sensitive=False)})
    assert (doubted["c1"], doubted["c5"].verdict) == (given["c1"], "inconclusive")


def test_a_claim_that_cannot_be_tested_counts_in_the_family() -> None:
    """As one with a p-value of 1 does, and so does one at chance."""
    family = {"c1": of(0.05, 0.022), "c3": of(0.05, 0.022, guesses=True)}
    assert holm({"c1": family["c1"]})["c1"].verdict == "supported"
    counted = holm(family)
    assert counted["c1"].verdict == "inconclusive"
    assert counted["c3"].verdict == "not testable: at chance"
    assert holm({"c1": family["c1"]}, untested=1)["c1"] == counted["c1"]


def test_wrong_verdicts_in_a_family_are_as_rare_as_promised() -> None:
    """Six claims whose costs are exactly zero: any verdict but "no relevant effect" and "inconclusive" is wrong."""
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(600):
        family = {f"c{i}": of(rng.normal(0, 1) * 0.05, 0.05 * np.sqrt(rng.chisquare(15) / 15), df=15) for i in range(6)}
        wrong += any(one.verdict in ("supported", "contradicted") for one in holm(family).values())
    assert wrong / 600 <= 0.07


def test_a_claim_of_no_harm_in_a_family() -> None:
    family = {"c5": of(0.05, 0.01), "c6": of(-0.02, 0.008)}
    judged = holm(family, harmless=("c6",))
    assert {name: one.verdict for name, one in judged.items()} == {"c5": "supported", "c6": "supported"}
    with pytest.raises(InputError, match="`harmless` must name claims of the family, c5, c6, got c7"):
        holm(family, harmless=("c7",))


def test_numbers_for_the_prose() -> None:
    found = of(0.05, 0.01, scope="other tasks, on this chain").numbers("c1")
    assert set(found) == {f"c1{end}" for end in ("", "_low", "_high", "_n", "_scope", "_margin", "_verdict", "_detectable")}
    assert (found["c1"], found["c1_verdict"], found["c1_margin"]) == (0.05, "supported", MARGIN)
    assert "x_detectable" not in Estimate(0.3, 0.3, 0.3, 1).numbers("x")  # JSON has no NaN
