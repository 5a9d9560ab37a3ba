"""The loop of Frankle and Carbin is what the study does round by round, to the last bit."""

from pathlib import Path

import pytest
import torch

from tests.pruning.test_rounds import IMAGES, LABELS, RECIPE, make, path_of
from tests.pruning.test_schedules import tiny
from vpcore import InputError
from vpcore.pruning.iterative import iterative_magnitude_pruning
from vpcore.pruning.masks import density
from vpcore.weights.tickets import read_ticket


@pytest.mark.parametrize(("rewind", "scope", "part"), [(0, "global", "body"), (1, "global", "all"), (2, "layer", "body")])
def test_the_loop_and_the_rounds_of_a_study_give_the_same_bits(tmp_path: Path, rewind: int, scope: str, part: str) -> None:
    make(tmp_path, "imp", 2, rewind=rewind, scope=scope, part=part)
    model = tiny()
    options = {"rounds": 2, "rate": 0.5, "rewind": rewind, "scope": scope, "part": part}
    found = list(iterative_magnitude_pruning(model, IMAGES, LABELS, RECIPE, **options))
    assert [number for number, _, _ in found] == [0, 1, 2]
    for number, masks, state in found:
        expected, kept, _ = read_ticket(path_of(tmp_path, "imp", number))
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        assert density(masks) == pytest.approx(0.5**number, abs=1e-3)
        assert all(bool(mask.all()) for mask in masks.values()) if number == 0 else set(masks) == set(kept)
        assert all(torch.equal(masks[name], mask) for name, mask in kept.items())
    assert all(torch.equal(value, tiny().state_dict()[name]) for name, value in model.state_dict().items())


def test_weights_that_are_named_are_those_that_are_pruned() -> None:
    found = iterative_magnitude_pruning(tiny(), IMAGES, LABELS, RECIPE, rounds=1, rate=0.5, weights=["fc.weight"])
    _, masks, state = list(found)[-1]
    assert list(masks) == ["fc.weight"]
    assert int((state["fc.weight"] != 0).sum()) == masks["fc.weight"].numel() // 2


def test_bad_arguments() -> None:
    for wrong, message in (
        ({"rewind": 3}, r"`rewind` must be an epoch in 0\.\.2, got 3"),
        ({"rate": 20}, "`rate` must be in .* use 0.2"),
        ({"scope": "row"}, "unknown scope 'row'"),
        ({"part": "legs"}, "unknown part 'legs'"),
    ):
        with pytest.raises(InputError, match=message):
            list(iterative_magnitude_pruning(tiny(), IMAGES, LABELS, RECIPE, **{"rounds": 1, "rate": 0.5, **wrong}))
