import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vpcore import InputError
from vpcore.report import claims


def study(loss: dict[tuple[str, object], float], *, seeds: int = 5, noise: float = 0.0, chain: int = 1) -> pd.DataFrame:
    """Records of a dense network of accuracy 0.6 and a pruned one that loses `loss`, for each task and budget."""
    rng = np.random.default_rng(0)
    rows = []
    for (task, budget), lost in loss.items():
        for seed in range(seeds):
            for number in (0, 1):
                for _ in range(chain):
                    accuracy = 0.6 - number * (lost + noise * rng.standard_normal())
                    rows.append(
                        {
                            "method": "vp", "task": task, "budget": budget, "seed": seed, "round": number,
                            "density": 0.5**number, "accuracy": accuracy, "ece": 0.1 + 0.02 * number, "classes": ["x"] * 10,
                        }
                    )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(budget=table["budget"].astype("Int64"))


def test_costs_are_paired_differences() -> None:
    cost = claims.costs(study({("a", 1): 0.1, ("a", None): 0.2}))
    assert len(cost) == 10
    assert cost.groupby("budget")["accuracy_loss"].mean().to_dict() == pytest.approx({1: 0.1, "all": 0.2})
    assert cost["ece_rise"].tolist() == pytest.approx([0.02] * 10)
    assert cost["relative_loss"].tolist() == pytest.approx([0.2] * 5 + [0.4] * 5)  # of 0.5 above chance


def test_unpaired_runs_are_left_out_and_doubles_refused() -> None:
    table = study({("a", 1): 0.1})
    assert len(claims.costs(table[~((table["round"] == 0) & (table["seed"] == 2))])) == 4
    with pytest.raises(InputError, match="must hold one chain of tickets"):
        claims.costs(study({("a", 1): 0.1}, chain=2))


def test_tasks_weigh_the_same_however_many_seeds_they_have() -> None:
    d = pd.DataFrame({"task": ["a"] * 2 + ["b"] * 8, "budget": 1, "x": [0.0] * 2 + [1.0] * 8})
    assert claims.estimate(d, "x").mean == 0.5


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """For normal noise and many seeds the bootstrap interval is the textbook's, and covers in about 95 % of the studies."""
    rng = np.random.default_rng(1)
    covered, widths = [], []
    for _ in range(200):
        x = rng.normal(0.3, 1, size=40)
        e = claims.estimate(pd.DataFrame({"task": "a", "budget": 1, "x": x}), "x")
        covered.append(e.low <= 0.3 <= e.high)
        widths.append((e.high - e.low) / (2 * stats.norm.ppf(0.975) * x.std() / np.sqrt(40)))
    assert 0.89 <= np.mean(covered) <= 0.99
    assert np.mean(widths) == pytest.approx(1, abs=0.05)


def test_scarcity_is_a_difference_of_differences() -> None:
    cost = claims.costs(study({("a", 1): 0.3, ("a", 10): 0.5, ("a", None): 0.1, ("b", 1): 0.0, ("b", 10): 0.2}))
    gap = claims.scarcity(cost, "accuracy_loss", round=1)
    assert gap.groupby("task")["accuracy_loss"].mean().to_dict() == pytest.approx({"a": 0.2, "b": -0.2})
    assert len(gap) == 10


def test_scarcity_of_guessing_networks_is_marked() -> None:
    """Costs say which networks guess; tables without that column are taken as they are."""
    cost = claims.costs(study({("a", 1): 0.3, ("a", 10): 0.5, ("b", 1): 0.1, ("b", 10): 0.2}))
    for guessing in (True, False):
        gap = claims.scarcity(cost.assign(at_chance=guessing), "ece_rise", round=1)
        assert gap["at_chance"].eq(guessing).all()
        assert claims.estimate(gap, "ece_rise").guesses == guessing
    assert not claims.estimate(claims.scarcity(cost.drop(columns="at_chance"), "ece_rise", round=1), "ece_rise").guesses


def test_the_matching_round_is_the_sparsest_that_keeps_up() -> None:
    source = pd.DataFrame({"round": [0, 1, 2, 3], "val_accuracy": [0.90, 0.91, 0.895, 0.80]})
    assert claims.matching_round(source) == 2
    assert claims.matching_round(source, margin=0.2) == 3
    assert claims.matching_round(source.assign(val_accuracy=[0.9, 0.5, 0.5, 0.5])) == 0
    assert (
        claims.matching_round(source.assign(val_accuracy=[0.9, 0.5, 0.89, 0.5])) == 2
    )  # 0.9 - 0.89 is above 0.01 in floats


def test_nothing_to_average() -> None:
    with pytest.raises(InputError, match="there are no values of x to average"):
        claims.estimate(pd.DataFrame({"task": [], "budget": [], "x": []}), "x")


def test_effects_compare_runs_that_differ_in_one_field() -> None:
    rows = [
        {"method": "vp", "task": task, "budget": budget, "seed": 0, "round": number, "mapping": mapping, "prompt": prompt}
        | {"accuracy": level + number / 10, "ece": 0.1, "nll": level * 2}
        for task in ("a", "b")
        for budget in (1, None)
        for number in (0, 1)
        for prompt in ("pad", "smm")
        for mapping, level in (("ilm", 0.5), ("blm", 0.7))
    ]
    table = pd.DataFrame(rows)
    table["budget"] = table["budget"].astype("Int64")
    found = claims.effects(table, "mapping", "ilm")
    assert len(found) == 16  # every run with blm has one counterpart
    assert set(found["mapping"]) == {"blm"}
    assert found["accuracy_gain"].tolist() == pytest.approx([0.2] * 16)
    assert found["nll_rise"].tolist() == pytest.approx([0.4] * 16)
    assert (found["ece_rise"] == 0).all()
    with pytest.raises(InputError, match="`base` must be a value of mapping in the table, got 'random'"):
        claims.effects(table, "mapping", "random")


def test_costs_of_several_dense_networks_are_paired_within_each() -> None:
    rows = [
        {"method": "lp", "task": "a", "budget": 1, "seed": 0, "source_seed": chain, "round": number, "density": 0.5**number}
        | {"accuracy": 0.9 - 0.1 * chain * number, "ece": 0.1, "classes": ["x", "y"]}
        for chain in (0, 1, 2)
        for number in (0, 1)
    ]
    table = pd.DataFrame(rows)
    table["budget"] = table["budget"].astype("Int64")
    cost = claims.costs(table)
    assert cost.set_index("source_seed")["accuracy_loss"].to_dict() == pytest.approx({0: 0, 1: 0.1, 2: 0.2})


def chains_of(*chains: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([chain.assign(source_seed=number) for number, chain in enumerate(chains)])


def test_scarcity_keeps_chains_apart() -> None:
    table = chains_of(study({("a", 1): 0.3, ("a", 10): 0.1}, seeds=2), study({("a", 1): 0.1, ("a", 10): 0.4}, seeds=2))
    gap = claims.scarcity(claims.costs(table), "accuracy_loss", round=1)
    assert gap.groupby("source_seed")["accuracy_loss"].mean().to_dict() == pytest.approx({0: 0.2, 1: -0.3})
    assert len(gap) == 4
    two = pd.concat([claims.costs(table).assign(sparsifier=name) for name in ("imp", "rigl")])
    with pytest.raises(InputError, match="the mean would mix sparsifier 'imp', 'rigl'"):
        claims.scarcity(two, "accuracy_loss", round=1)


def test_the_ends_of_scarcity_are_means_over_the_seeds_of_their_difference() -> None:
    """Seeds 3 and 4 lack the large budget, and lose more."""
    cost = claims.costs(study({("a", 1): 0.3, ("a", 10): 0.1}, noise=0.05))
    cost = cost[(cost["budget"] == 1) | (cost["seed"] < 3)]
    gap = claims.scarcity(cost, "accuracy_loss", round=1)
    means = gap[["accuracy_loss", "scarce", "plenty"]].mean()
    assert means["accuracy_loss"] == pytest.approx(means["scarce"] - means["plenty"])
    assert gap["seed"].tolist() == [0, 1, 2]
    assert set(gap["scarce_budget"]) == {1}
    assert set(gap["plenty_budget"]) == {10}


def test_the_lost_share_is_a_ratio_of_means_at_each_end() -> None:
    """Task a loses 0.1 and 0.05, b 0.3 and 0.05, of 0.5 above chance each: 40 % and 10 %."""
    cost = claims.costs(study({("a", 1): 0.1, ("b", 1): 0.3, ("a", 10): 0.05, ("b", 10): 0.05}))
    gap = claims.scarcity(cost, "lost_share", round=1)
    assert gap[["lost_share", "scarce", "plenty"]].mean().tolist() == pytest.approx([0.3, 0.4, 0.1])
    assert claims.estimate(gap, "lost_share").mean == pytest.approx(0.3)


def test_one_budget_has_no_scarcity() -> None:
    assert claims.scarcity(claims.costs(study({("a", 1): 0.3})), "accuracy_loss", round=1).empty


def test_the_matching_round_of_several_chains_is_that_of_their_mean() -> None:
    """Alone the first chain keeps up at round 2, the second at round 1."""
    source = pd.DataFrame(
        {"source_seed": [0] * 3 + [1] * 3, "round": [0, 1, 2] * 2, "val_accuracy": [0.9, 0.9, 0.895, 0.9, 0.9, 0.87]}
    )
    assert claims.matching_round(source) == 1
    assert claims.matching_round(source, margin=0.02) == 2
    assert claims.matching_round(source.sample(frac=1, random_state=0)) == 1
    with pytest.raises(InputError, match=r"dense network of each chain once, got \[1\] for the chains \[0, 1\]"):
        claims.matching_round(source[1:])
    with pytest.raises(InputError, match="`source` must have val_accuracy"):
        claims.matching_round(source.rename(columns={"val_accuracy": "accuracy"}))
    with pytest.raises(InputError, match="mix sparsifier 'gmp', 'imp'"):
        claims.matching_round(source.assign(sparsifier=[None, "imp", "gmp"] * 2))


def test_matching_bits_of_several_chains() -> None:
    bits = [32, 8, 4, 3]
    source = pd.DataFrame({"weight_bits": bits * 2, "activation_bits": bits * 2, "source_seed": [0] * 4 + [1] * 4})
    accuracy = [0.9, 0.9, 0.895, 0.5, 0.8, 0.8, 0.795, 0.4]
    assert claims.matching_bits(source.assign(val_accuracy=accuracy)) == 4
    assert claims.matching_bits(source.assign(val_accuracy=[0.9, 0.5, 0.5, 0.5] * 2)) == 0
    assert claims.matching_bits(source.assign(val_accuracy=[0.9, 0.5, 0.89, 0.5] * 2)) == 4


def test_the_matching_ticket_is_sought_among_those_that_every_chain_has() -> None:
    """Only the deep chain has round 2, and keeps up there."""
    source = pd.DataFrame({"source_seed": [0, 0, 0, 1, 1], "round": [0, 1, 2, 0, 1], "val_accuracy": [0.9] * 5})
    assert claims.matching_round(source) == 1
    bits = source.assign(round=0, weight_bits=[32, 8, 4, 32, 8], activation_bits=[32, 8, 4, 32, 8])
    assert claims.matching_bits(bits) == 8


def prestated(keeps_up: tuple[float, float] = (0.4, 0.3)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records of `main` and `quantized`: four chains, four tasks of which one is near chance.

    A ticket loses 5 points at one image a class and 10 at ten, at round 1 half of that; quantized networks lose 3.
    """
    rng = np.random.default_rng(0)

    def record(chain: int, **fields: object) -> dict[str, object]:
        usual = {"source_seed": chain, "seed": chain, "weight_bits": 32, "activation_bits": 32, "quant_training": "none"}
        noise = rng.normal(0, 0.002)
        usual |= {"brier_uncertainty": 0.99, "images": 1000, "ece": 0.1 + noise, "ece_debiased": 0.1 + noise}
        return usual | {"classes": ["x"] * 10, "round": 0} | fields

    def transfers(lost: float, chain: int, **network: object) -> list[dict[str, object]]:
        rows = []
        for task in ("a", "b", "c", "chance"):
            for budget, dense in ((1, 0.3), (10, 0.6)):
                accuracy = (0.12 if task == "chance" else dense - lost * (1 if budget == 10 else 0.5)) + rng.normal(0, 0.002)
                found = {"method": "vp", "task": task, "budget": budget, "accuracy": accuracy, "val_accuracy": accuracy}
                rows.append(record(chain, **found, **network))
        return rows

    main, quantized = [], []
    for chain in range(4):
        for number, val in enumerate((0.4, *keeps_up)):
            upstream = {"method": "source", "task": "s", "budget": None, "accuracy": val, "val_accuracy": val}
            main += [record(chain, round=number, **upstream), *transfers(0.05 * number, chain, round=number)]
        for bits in (32, 4) if chain < 2 else ():
            network = {"weight_bits": bits, "activation_bits": bits, "quant_training": "lsq"}
            quantized += transfers(0.03 * (bits == 4), chain, **network)
    return tuple(pd.DataFrame(rows).astype({"budget": "Int64"}) for rows in (main, quantized))


def test_tasks_near_chance_are_left_out_by_validation_accuracy_at_ten_images() -> None:
    main, _ = prestated()
    assert claims.near_chance(main) == ["chance"]
    better = main.assign(val_accuracy=main["val_accuracy"].where(main["budget"] != 10, 0.5), accuracy=0.1)
    assert claims.near_chance(better) == []
    just = main.assign(val_accuracy=main["val_accuracy"].where(main["task"] != "chance", 0.15))
    assert claims.near_chance(just) == []  # 0.15 is below 1.5 * 0.1 in floats


def test_the_family_of_the_protocol() -> None:
    """All numbers are those that went in; the task near chance is in none of them."""
    main, quantized = prestated()
    judged = claims.primary(main, quantized, harm_seen=True)
    assert list(judged) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    means = {name: one.estimate.mean for name, one in judged.items()}
    assert means["C1"] == pytest.approx(0.075, abs=0.003)
    assert means["C2"] == pytest.approx(0.05 / 0.2 - 0.1 / 0.5, abs=0.02)
    assert means["C4"] == pytest.approx(0.0375, abs=0.003)  # round 1 keeps up
    assert means["C5"] == pytest.approx(0.0225, abs=0.003)
    assert {name: judged[name].verdict for name in ("C1", "C4", "C3", "C6")} == {
        "C1": "supported", "C4": "supported", "C3": "no relevant effect", "C6": "supported",
    }  # fmt: skip
    assert judged["C5"].estimate.scope == "other tasks, on these chains"
    worse = main.assign(ece_debiased=main["ece_debiased"] + 0.1 * (main["round"] == 2))
    assert claims.primary(worse, quantized, ece="ece_debiased", harm_seen=True)["C3"].verdict == "supported"
    assert claims.primary(worse, quantized, harm_seen=True)["C3"].verdict == "no relevant effect"
    assert claims.of_sparsity(main, round=1)["C1"].mean == pytest.approx(means["C4"])


def test_claim_4_is_claim_1_when_the_ticket_is_the_same_and_counts_when_there_is_none() -> None:
    same, none = (claims.primary(*prestated(keeps_up), harm_seen=True) for keeps_up in ((0.4, 0.4), (0.3, 0.3)))
    assert same["C4"] is same["C1"]
    assert min(one.estimate.level for one in same.values()) >= 0.95
    assert max(one.estimate.level for one in same.values()) == pytest.approx(1 - 0.05 / 5)
    assert none["C4"].verdict == "not testable: no ticket keeps up"
    assert max(one.estimate.level for one in none.values()) == pytest.approx(1 - 0.05 / 6)


def test_claims_over_two_chains_find_nothing_only_if_the_control_finds_harm() -> None:
    """C3 has four chains, C6 two."""
    main, quantized = prestated()
    seen, unseen = (claims.primary(main, quantized, harm_seen=seen) for seen in (True, False))
    verdicts = {name: (seen[name].verdict, unseen[name].verdict) for name in seen}
    assert verdicts["C6"] == ("supported", "inconclusive")
    assert verdicts["C3"] == ("no relevant effect",) * 2
    assert verdicts["C5"] == ("supported",) * 2
    back = quantized["budget"].map({1: 0.015, 10: 0.03}).astype(float) * (quantized["weight_bits"] == 4)
    same = quantized.assign(accuracy=quantized["accuracy"] + back)
    verdicts = [claims.primary(main, same, harm_seen=seen)["C5"].verdict for seen in (True, False)]
    assert verdicts == ["no relevant effect", "inconclusive"]


@pytest.mark.parametrize(("lost", "found"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_the_control_finds_harm_by_prompting_when_the_loss_is_supported(lost: float, found: bool) -> None:
    rows = [
        {"method": method, "task": task, "budget": budget, "seed": 0, "source_seed": chain, "source_epochs": epochs}
        | {"accuracy": 0.5 - (lost if method == "vp" else 0.3) * (epochs == 3), "ece": 0.1}
        for method in ("vp", "lp")
        for task in ("a", "b", "c")
        for budget in (10, 100)
        for chain in (10, 11)
        for epochs in (3, 12)
    ]
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rows).astype({"budget": "Int64"})
    assert claims.finds_harm(table.assign(accuracy=table["accuracy"] + rng.normal(0, 0.003, len(rows)))) == found
