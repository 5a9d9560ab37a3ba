import numpy as np
import pandas as pd
import pytest

from vpcore import InputError
from vpcore.report.pairs import PAIR, check_unmixed, costs, effects, worse
from vpcore.study.run import FACTS, NETWORK


def records(**more: object) -> pd.DataFrame:
    """A dense network and a pruned one, VP on tasks a and b with 1 and 10 images a class; the pruned one loses 0.1."""
    rows = [
        {"method": "vp", "task": task, "budget": budget, "seed": 0, "source_seed": 0, "round": number}
        | {"sparsifier": "imp" if number else None, "accuracy": 0.6 - 0.1 * number, "ece": 0.1, "images": 1000}
        | {"classes": ["x"] * 10, "train_images": 10 * budget}
        for task in ("a", "b")
        for budget in (1, 10)
        for number in (0, 1)
    ]
    return pd.DataFrame(rows).assign(**more).astype({"budget": "Int64"})


def test_every_field_of_a_run_is_shared_by_a_pair_or_tells_networks_apart() -> None:
    assert set(PAIR) | set(NETWORK) == set(FACTS)
    assert not set(PAIR) & set(NETWORK)


def test_two_sparsifiers_in_one_table_are_refused_by_name_and_apart_they_are_not() -> None:
    table = records()
    both = costs(pd.concat([table, table[table["round"] == 1].assign(sparsifier="rigl", accuracy=0.3)]))
    assert len(both) == 8
    with pytest.raises(InputError, match="the mean would mix sparsifier 'imp', 'rigl'; select one, or name it in `axes`"):
        check_unmixed(both, [])
    check_unmixed(both, ["sparsifier"])
    for name, loss in (("imp", 0.1), ("rigl", 0.3)):
        mine = both[both["sparsifier"] == name]
        check_unmixed(mine, [])
        assert mine["accuracy_loss"].tolist() == pytest.approx([loss] * 4)


@pytest.mark.parametrize(
    ("field", "values"), [("source_epochs", (6, 12)), ("prompt", ("frame", "pad")), ("canvas", (32, 64))]
)
def test_two_recipes_prompts_or_canvases_pair_within_themselves_and_are_refused_together(field: str, values: tuple) -> None:
    tables = [
        records(**{field: value}).assign(accuracy=lambda t, i=i: t["accuracy"] - i / 10) for i, value in enumerate(values)
    ]
    found = costs(pd.concat(tables))
    assert len(found) == 8
    assert found["accuracy_loss"].tolist() == pytest.approx([0.1] * 8)
    with pytest.raises(InputError, match=f"the mean would mix {field} {values[0]!r}, {values[1]!r}"):
        check_unmixed(found, [])


def test_what_goes_with_the_budget_may_vary_and_labels_of_ones_own_may_not() -> None:
    found = costs(records().assign(batch=lambda t: t["budget"].map({1: 8, 10: 32})))
    check_unmixed(found, [])
    with pytest.raises(InputError, match="mix defect 'none', 'ties'"):
        check_unmixed(pd.concat([found.assign(defect="none"), found.assign(defect="ties")]), [])


def test_several_chains_are_paired_each_with_its_own_dense_network() -> None:
    chains = [records(source_seed=c).assign(accuracy=lambda t, c=c: t["accuracy"] - 0.1 * c * t["round"]) for c in range(3)]
    found = costs(pd.concat(chains))
    assert found.groupby("source_seed")["accuracy_loss"].mean().to_dict() == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    check_unmixed(found, [])


def test_a_dense_run_that_occurs_twice_is_refused_and_says_how_the_two_differ() -> None:
    table = records(weight_bits=32, activation_bits=32)
    with pytest.raises(InputError, match="some dense runs occur twice; drop the copies"):
        costs(pd.concat([table, table]))
    other = table[table["round"] == 0].assign(quant_range="mse")
    with pytest.raises(InputError, match=r"occur twice \(they differ in quant_range nan, 'mse'\); select one"):
        costs(pd.concat([table, other]))


def test_records_of_one_network_that_were_measured_on_two_are_refused() -> None:
    """One seed on a ticket and another on the one that took its place; or a network and its quantized version."""
    table = records(ticket=lambda t: t["round"].map({0: "d", 1: "s"}))
    other = table.assign(seed=1)
    assert len(costs(pd.concat([table, other]))) == 8
    mixed = pd.concat([table, other.assign(ticket=lambda t: t["round"].map({0: "d", 1: "new"}))])
    with pytest.raises(InputError, match="one network with source_seed 0, round 1, but some are of the ticket s and .* new"):
        costs(mixed)
    with pytest.raises(InputError, match="one network"):
        effects(mixed, "seed", 0)
    coarse = table.assign(weight_bits=4, activation_bits=4, ticket="new")
    with pytest.raises(InputError, match="one network"):
        costs(pd.concat([table.assign(weight_bits=32, activation_bits=32), coarse]), against="float")
    assert len(costs(pd.concat([table, other.assign(ticket=None)]))) == 8  # from before digests were recorded


def test_without_any_counterpart_there_is_an_error_and_not_an_empty_table() -> None:
    table = records()
    with pytest.raises(InputError, match="must hold the dense run of each compressed one"):
        costs(table[table["round"] == 1])
    assert costs(table[table["round"] == 0]).empty


def test_a_saturated_budget_counts_once() -> None:
    """Task a has 12 images a class, so that 50 and all are the same images; b has 80."""
    one = records().query("budget == 1")
    more = [one.assign(budget=50, train_images=500), one.assign(budget=None, train_images=800)]
    table = pd.concat([records(), *more], ignore_index=True).astype({"budget": "Int64"})
    few = table["task"].eq("a") & ~table["budget"].isin([1, 10])
    table.loc[few, "train_images"] = 120
    found = costs(table)
    kept = found.groupby("task")["budget"].agg(list).to_dict()
    assert kept == {"a": [1, 10, 50], "b": [1, 10, 50, "all"]}


def test_the_steps_of_a_control_are_no_saturated_budget() -> None:
    table = pd.concat([records(batch=8, epochs=100), records(batch=8, epochs=40)])
    assert len(costs(table)) == 8


def test_a_quantized_ticket_is_paired_with_the_float_ticket() -> None:
    table = records(weight_bits=32, activation_bits=32)
    coarse = table.assign(weight_bits=4, activation_bits=4, accuracy=table["accuracy"] - 0.2)
    found = costs(pd.concat([table, coarse]), against="float")
    assert found.groupby("round")["accuracy_loss"].mean().to_dict() == pytest.approx({0: 0.2, 1: 0.2})
    dense = costs(pd.concat([table, coarse]))
    means = dense.groupby(["round", "weight_bits"])["accuracy_loss"].mean().to_dict()
    assert means == pytest.approx({(0, 4): 0.2, (1, 4): 0.3, (1, 32): 0.1})
    with pytest.raises(InputError, match='`against` must be "dense" or "float", got \'ticket\''):
        costs(table, against="ticket")


def test_runs_at_chance_are_marked_downstream_and_upstream() -> None:
    table = records()
    table.loc[(table["task"] == "a") & (table["round"] == 1), "accuracy"] = 0.115  # of 1,000 images: chance is 0.1 +- 0.0095
    found = costs(table)
    assert found.groupby("task")["at_chance"].all().to_dict() == {"a": True, "b": False}
    source = pd.DataFrame(
        [
            {"method": "source", "task": "s", "seed": 0, "source_seed": 0, "round": number, "accuracy": accuracy}
            | {"sparsifier": "imp" if number else None, "brier_uncertainty": 0.995, "images": 1000}
            for number, accuracy in ((0, 0.4), (1, 0.005))
        ]
    )
    assert costs(pd.concat([table, source]))["at_chance"].all()
    source["accuracy"] = 0.4
    assert not costs(pd.concat([table, source]))["at_chance"].all()


def test_all_measures_of_which_more_is_worse_are_compared() -> None:
    table = records(nll=1.0, nll_temperature=0.9, brier_resolution=0.3, confidence=0.5)
    assert worse(table) == ["nll", "nll_temperature", "ece"]
    rises = {name for name in costs(table) if name.endswith("_rise")}
    assert rises == {"nll_rise", "nll_temperature_rise", "ece_rise"}


def test_effects_along_other_fields() -> None:
    table = records(choice="vp", epochs=100)
    probe = records(choice="lp", epochs=30, method="lp").assign(accuracy=lambda t: t["accuracy"] + 0.2)
    found = effects(pd.concat([table, probe]), "choice", "vp", along=["method", "epochs"])
    assert found["accuracy_gain"].tolist() == pytest.approx([0.2] * 8)
    assert effects(pd.concat([table, probe]), "choice", "vp").empty


def test_the_share_that_is_lost_has_no_value_where_nothing_is_above_chance() -> None:
    table = records()
    table.loc[table["task"] == "a", "accuracy"] = 0.1
    lost = costs(table).groupby("task")["relative_loss"].mean()
    assert np.isnan(lost["a"])
    assert lost["b"] == pytest.approx(0.2)
