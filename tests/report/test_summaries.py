import pandas as pd
import pytest

from vpcore.report.summaries import beside_control


def records(number: int, way: object, accuracy: float) -> list[dict[str, object]]:
    return [
        {"round": number, "sparsifier": way, "task": task, "method": method, "budget": 10, "seed": seed}
        | {"density": 0.7**number, "accuracy": accuracy + 0.1 * seed}
        for task in ("a", "b")
        for method in ("vp", "lp")
        for seed in (0, 1)
    ]


def test_a_control_stands_beside_the_networks_and_what_is_missing_of_it_is_named() -> None:
    """Its records are as a store gives them: budgets of a nullable type, those on the source task, and other budgets."""
    shown = pd.DataFrame([*records(0, None, 0.6), *records(1, "magnitude", 0.5), *records(2, "wanda", 0.3)])
    shown["budget"] = shown["budget"].astype(object)
    rows, numbers = beside_control(shown, pd.DataFrame())
    assert [row["weights kept, %"] for row in rows] == ["100", "100", "70", "49"]
    assert {cell for name, cell in rows[1].items() if "," in name and "weights" not in name} == {"missing"}
    assert numbers["control_1_a_vp"] == "missing"
    assert numbers["magnitude_1_b_lp"] == pytest.approx(0.55)
    there = pd.DataFrame([{**row, "method": "source", "budget": None} for row in records(1, "magnitude-bn", 0.9)[:1]])
    part = pd.DataFrame([row for row in records(1, "magnitude-bn", 0.4) if row["task"] == "a"])
    others = part.assign(budget=1, accuracy=0.0)
    control = pd.concat([there, part, others]).astype({"budget": "Int64"}).assign(density=1 - 1e-8)
    rows, numbers = beside_control(shown, control)
    assert rows[1]["network"] == "dense, batch norm renewed"
    assert rows[1]["a, linear probing"] == "45.0 ± 7.1"
    assert rows[1]["b, linear probing"] == "missing"
    assert numbers["control_1_a_vp"] == pytest.approx(0.45)
