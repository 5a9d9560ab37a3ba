import dataclasses
import re
from pathlib import Path

import pytest

from vpcore import InputError
from vpcore.study.profile import load_profile, profile_names, run_with
from vpcore.study.run import canonical, source_run


@pytest.mark.parametrize("toy", [False, True])
@pytest.mark.parametrize("name", profile_names())
def test_profiles_are_complete_and_paired(name: str, toy: bool) -> None:
    profile = load_profile(name, toy=toy)
    for runs in map(set, profile.grids.values()):
        assert all(source_run(run) in runs for run in runs)
        for run in runs:  # every compressed run has its dense float twin in the same grid
            if 1 - 1e-6 < run.density < 1:  # the control of renewed batch norms, which prunes nothing
                continue
            twin = dataclasses.replace(run, round=0, weight_bits=32, activation_bits=32)
            assert (source_run if run.method == "source" else canonical)(twin) in runs
    assert {"vp", "lp"} <= {run.method for run in profile.runs} or name == "pilot"  # which only chooses rates of prompts
    assert profile.name == name + "-toy" * toy
    assert profile.title
    assert profile.about


@pytest.mark.parametrize("name", profile_names())
def test_a_toy_is_for_any_processor(name: str) -> None:
    # one without instructions for bf16 is some fifty times slower in it
    assert {run.precision for run in load_profile(name, toy=True).runs} == {"float32"}


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
        (GOOD + "test_per_class = [0]", "`test_per_class` .* must be at least 1, got 0"),
        (GOOD + 'budget = ["every"]', "`budget` .* must be int or 'all', got 'every'"),
        (GOOD + "seed = 3", "`seed` .* must be a list of values, got 3"),
        (GOOD.replace('"vp"', '"pv"'), "unknown method in .* 'pv'; There are: ft, lp, source, vp"),
        (GOOD.replace("epochs = 2", "rate = 20.0"), "`rate` must be in .*, got 20.0; percent\\? use 0.2"),
        (GOOD.replace("epochs = 2", "image_px = 32"), "`image_px` must be .* below the canvas of 32 px, got 32"),
        (GOOD.replace("epochs = 2", "lr = 0"), "`lr` .* must be above 0, got 0.0"),
        (
            GOOD.replace("epochs = 2", "rewind = 12"),
            r"in .* p.toml: `rewind` must be an epoch in 0\.\.11, got 12",
        ),
        (GOOD + 'prompt = ["pda"]', "unknown prompt in .* 'pda'; did you mean 'pad'"),
        (GOOD + 'mapping = ["ilmm"]', "unknown mapping in .* 'ilmm'; did you mean 'ilm'"),
        (GOOD + 'model = ["resnet9"]', "unknown model in .* 'resnet9'; did you mean 'resnet8'"),
        (GOOD + 'precision = ["fp16"]', "unknown precision in .* 'fp16'; did you mean 'bf16'"),
        (GOOD + 'augment = ["flip"]', "unknown augment in .* 'flip'"),
        (GOOD + 'sparsifier = ["impp"]', "unknown sparsifier in .* 'impp'; did you mean 'imp'"),
        (GOOD + 'weights = ["packages"]', "unknown weights in .* 'packages'; did you mean 'package'"),
        (GOOD + "weight_bits = [1]", "`weight_bits` .* must be 2 to 8, or 32 for none, got 1"),
        (GOOD + 'round = [2]\nsparsifier = ["2:4"]', "p.toml: `sparsifier` 2:4 has a density of 0.5, got 0.25"),
        (
            GOOD.replace("epochs = 2", "rate = 0.4") + 'round = [1]\nsparsifier = ["2:4"]',
            "2:4 has a density of 0.5, got 0.6",
        ),
        (GOOD.replace('"vp"', '"ft"') + "weight_bits = [4]", "p.toml: `method` ft trains the weights"),
        (GOOD + '"lr, epochs" = [[1, 2], [3]]', "`lr, epochs` .* must be a list of lists of 2 values, got .*3.* in it"),
        (
            GOOD.replace('"vp"', '"ft"') + 'selection = ["test"]',
            "`selection` must be last for `method` ft, .* got test",
        ),
        (GOOD.replace('"vp"', '"lp"') + 'view = ["canvas"]\nimage_px = [32]', "`image_px` must be .* got 32"),
        (GOOD + 'prompt = ["smm"]\ncanvas = [36]', "`canvas` must be a multiple of 8.* got 36"),
        (
            GOOD + 'round = [1]\nsparsifier = ["channels"]\npart = ["all"]',
            "p.toml: `part` must not contain the classifier .* got all",
        ),
        (GOOD + 'round = [1]\nweights = ["random"]', "p.toml: `sparsifier` imp goes back to an early epoch"),
        ('title = "t"', r"must have at least one \[\[grid\]\]"),
        (GOOD + "canvas = [100000]", "`canvas` .* must be at most 4096, got 100000"),
        (GOOD + "round = [1000000]", "`round` .* must be at most 10000, got 1000000"),
        (GOOD.replace("epochs = 2", "lr = nan"), "`lr` .* must be float, got nan"),
        ("grid = 3", r"must have at least one \[\[grid\]\] of runs, got 3"),
        ("run = 3\n" + GOOD.replace("[run]\nepochs = 2\n", ""), r"`run` .* must be a table, \[run\], got 3"),
        (re.sub("title = .*", "title = 3", GOOD), '`title` in the profile .* must be text, "...", got 3'),
        ("protocol = 1\n" + GOOD, "`protocol` .* must be text"),
        (GOOD + 'name = ["a"]', r"`name` in \[\[grid\]\] of .* must be text"),
        (GOOD + 'toy = "no"', r"`toy` in \[\[grid\]\] of .* must be true or false"),
        (GOOD + "[toy]\nrun = 3", r"`run` in \[toy\] .* must be a table"),
        (GOOD + "[toy]\ngrid = 3", r"`grid` in \[toy\] .* must be a table"),
        (GOOD + '[toy]\nfakes = "no"', r"`fakes` in \[toy\] .* must be true or false"),
        (GOOD + '"lr, lr" = [[1, 2]]', "`lr` .* must be named once"),
        (GOOD + f"lr = {[1] * 1000}\nseed = {list(range(2000))}", "at most 1,000,000 runs, got "),
        (GOOD + f"seed = [{2**40}]", "`seed` .* must be at most 4294967295"),
        (GOOD.replace("epochs = 2", "lr = 1e300"), r"`lr` .* must be at most 1e\+38"),
        (GOOD + "seed = [" + 5000 * "9" + "]", "must be TOML; it is damaged"),
        (5000 * "[", "must be TOML; it is damaged"),
        (GOOD + "[toy]\nfakse = true", r"unknown key in \[toy\] of the profile .* 'fakse'; did you mean 'fakes'"),
        (GOOD + "[toy.grid]\nepohcs = [2]", r"unknown key in \[toy.grid\] of the profile .* 'epohcs'"),
    ],
)
def test_a_bad_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile(str(path))


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    other = '\n[[grid]]\nmethod = ["lp"]\ntask = ["shapes"]\nround = [2]\n'
    path.write_text(GOOD + 'budget = [1, "all"]' + other + "[toy.grid]\nbudget = [3]\nround = [1]")
    assert {run.budget for run in load_profile(str(path)).runs if run.method == "vp"} == {1, None}
    toy = [run for run in load_profile(str(path), toy=True).runs if run.method == "vp"]
    assert [(run.budget, run.round) for run in toy] == [(3, 0)]  # only axes that the grid has are replaced


def test_unknown_profile() -> None:
    with pytest.raises(InputError, match="unknown profile 'minni'; did you mean 'mini'"):
        load_profile("minni")


def test_fields_that_vary_together(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD + '"lr, epochs" = [[0.5, 1], [0.25, 7]]\nseed = [0, 1]')
    runs = [run for run in load_profile(str(path)).runs if run.method == "vp"]
    assert sorted((run.lr, run.epochs, run.seed) for run in runs) == [(0.25, 7, 0), (0.25, 7, 1), (0.5, 1, 0), (0.5, 1, 1)]


def test_a_large_grid_builds_its_prompt_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, path = [], tmp_path / "own.toml"
    monkeypatch.setattr("vpcore.study.profile.build", lambda name, **sizes: built.append((name, sizes["canvas"])))
    axes = f"seed = {list(range(50))}\nbudget = [1, 2]\ncanvas = [61, 62]"
    path.write_text(GOOD + axes)
    assert len([run for run in load_profile(str(path)).runs if run.method == "vp"]) == 200
    assert built == [("pad", 61), ("pad", 62)]


def test_grids_have_names_and_a_toy_may_leave_one_out(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD + 'name = "a"\n[[grid]]\nmethod = ["lp"]\ntask = ["digits"]\nname = "b"\ntoy = false')
    profile = load_profile(str(path))
    assert {name: {run.method for run in runs} for name, runs in profile.grids.items()} == {
        "a": {"vp", "source"},
        "b": {"lp", "source"},
    }
    assert len(profile.runs) == 3  # the two grids share the run on the source task
    assert set(load_profile(str(path), toy=True).grids) == {"a"}
    with pytest.raises(InputError, match="unknown grid of the profile own: 'c'; There are: a, b"):
        profile.grid("c")


def test_one_run_of_ones_own() -> None:
    mini = load_profile("mini")
    run = run_with(mini, ["task=digits", "method=vp", "budget=4", "lr=1", "mapping=blm", "source_decay=2e-3"])
    assert (run.task, run.budget, run.lr, run.mapping, run.source_decay) == ("digits", 4, 1.0, "blm", 2e-3)
    assert run.image_px == mini.values["image_px"]
    assert run_with(mini, ["budget=all", "method=lp"]).budget is None
    for settings, message in (
        (["digits"], "a setting must be FIELD=VALUE, such as task=digits; got 'digits'"),
        (["taks=digits"], "unknown field in the setting taks=digits: 'taks'; did you mean 'task'"),
        (["epochs=many"], "`epochs` in the setting epochs=many must be int, got 'many'"),
        (["mapping=ilmm"], "unknown mapping in the setting mapping=ilmm: 'ilmm'"),
    ):
        with pytest.raises(InputError, match=message):
            run_with(mini, settings)
