import dataclasses
from pathlib import Path

import pytest

from vpcore import InputError
from vpcore.runs import FIELDS, Run, load_profile, profile_names, run_id, run_name, source_run

# The ids of three runs with the defaults. A change here makes every record that exists an orphan: a field that is added
# must not enter the identity of the runs that were there before.
PINNED = {"source": "70158785172e", "vp": "fd021fc49f12", "lp": "99b40fad85f9"}


def test_identities_are_pinned() -> None:
    assert {method: run_id(Run(method=method, task="digits")) for method in FIELDS} == PINNED


def test_identity_holds_what_a_run_depends_on_and_nothing_else() -> None:
    base = Run(method="lp", task="digits")
    assert run_id(dataclasses.replace(base, image_px=16)) == run_id(base)  # a probe has no canvas
    prompt = dataclasses.replace(base, method="vp")
    assert run_id(dataclasses.replace(prompt, image_px=16)) != run_id(prompt)
    source = Run(method="source")
    for name in ("task", "budget", "seed", "lr"):
        changed = dataclasses.replace(source, **{name: "digits" if name == "task" else 3})
        assert run_id(changed) == run_id(source)
    for field in dataclasses.fields(Run):  # every field matters to some method
        value = getattr(base, field.name)
        other = value + 1 if isinstance(value, int | float) else 5 if value is None else f"{value}x"
        if field.name != "method":
            assert any(
                run_id(dataclasses.replace(base, method=m, **{field.name: other}))
                != run_id(dataclasses.replace(base, method=m))
                for m in FIELDS
            )


def test_names_are_different_for_different_runs() -> None:
    runs = load_profile("mini").runs
    assert len({run_name(run) for run in runs}) == len({run_id(run) for run in runs}) == len(runs)


@pytest.mark.parametrize("toy", [False, True])
@pytest.mark.parametrize("name", profile_names())
def test_profiles_are_complete_and_paired(name: str, toy: bool) -> None:
    profile = load_profile(name, toy=toy)
    runs = set(profile.runs)
    assert all(source_run(run) in runs for run in runs)
    transfers = [run for run in runs if run.method != "source"]
    assert {run.method for run in transfers} == {"vp", "lp"}
    for run in transfers:
        assert dataclasses.replace(run, round=0) in runs  # every compressed run has its dense twin
    assert profile.name == name + "-toy" * toy
    assert profile.title
    assert profile.about


def test_mini_is_what_was_promised() -> None:
    runs = load_profile("mini").runs
    densities = sorted({run.density for run in runs})
    assert len(densities) >= 6
    assert densities[0] <= 0.05
    assert densities[-1] == 1
    assert len({run.seed for run in runs if run.method == "vp"}) >= 3
    assert {1, None} <= {run.budget for run in runs if run.method == "vp"}


GOOD = 'title = "t"\n[run]\nepochs = 2\n[[grid]]\nmethod = ["vp"]\ntask = ["digits"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "[run", "must be TOML; it is damaged: "),
        (GOOD.replace("epochs", "epoch"), r"unknown field in \[run\] of p.toml: 'epoch'; did you mean 'epochs'"),
        (GOOD.replace("title", "titel"), "unknown key in the profile .* 'titel'; did you mean 'title'"),
        (GOOD.replace("= 2", '= "2"'), r"`epochs` in \[run\] of p.toml must be int, got '2'"),
        (GOOD.replace("= 2", "= true"), "`epochs` .* must be int, got True"),
        (GOOD.replace("= 2", "= 0"), "`epochs` .* must be at least 1, got 0"),
        (GOOD + "budget = [0]", "`budget` .* must be at least 1, got 0"),
        (GOOD + 'budget = ["every"]', "`budget` .* must be int or 'all', got 'every'"),
        (GOOD + "seed = 3", "`seed` .* must be a list of values, got 3"),
        (GOOD.replace('"vp"', '"pv"'), "unknown method in .* 'pv'; There are: lp, source, vp"),
        (GOOD.replace("epochs = 2", "rate = 20.0"), "`rate` must be in .*, got 20.0; percent\\? use 0.2"),
        (GOOD.replace("epochs = 2", "image_px = 32"), "`image_px` .* must be below the canvas of 32 px, got 32"),
        (GOOD.replace("epochs = 2", "lr = 0"), "`lr` .* must be above 0, got 0.0"),
        (GOOD.replace("epochs = 2", "rewind = 12"), r"`rewind` .* must be an epoch in 0\.\.11, got 12"),
        ('title = "t"', r"must have at least one \[\[grid\]\]"),
    ],
)
def test_a_bad_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile(str(path))


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD + 'budget = [1, "all"]\n[toy.grid]\nbudget = [3]\nround = [1]')
    assert {run.budget for run in load_profile(str(path)).runs if run.method == "vp"} == {1, None}
    toy = [run for run in load_profile(str(path), toy=True).runs if run.method == "vp"]
    assert [(run.budget, run.round) for run in toy] == [(3, 0)]  # only axes that the grid has are replaced


def test_unknown_profile() -> None:
    with pytest.raises(InputError, match="unknown profile 'minni'; did you mean 'mini'"):
        load_profile("minni")
