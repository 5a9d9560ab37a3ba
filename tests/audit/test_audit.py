"""`vpcore audit`: from two networks to verdict, page, numbers and exit code."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch.nn.utils import prune as torch_prune

from tests.audit import networks
from vpcore.audit import examples, findings, tables
from vpcore.audit import page as page_module
from vpcore.audit.design import Speed, choose, half_width, seconds, seconds_of
from vpcore.audit.findings import CLEAN, COST, EXIT, OPEN, PRIMARY, judge
from vpcore.audit.networks import compared, read_network
from vpcore.audit.numbers import numbers
from vpcore.audit.options import Options, options_of
from vpcore.audit.page import page
from vpcore.audit.run import Audit, audit
from vpcore.audit.tasks import Task, read_task
from vpcore.cli import main
from vpcore.commands import own_audit
from vpcore.errors import InputError
from vpcore.networks.backbones import HALF
from vpcore.pruning.masks import prune
from vpcore.report.parameters import assigned
from vpcore.report.verdicts import SUPPORTED
from vpcore.weights.tickets import save_ticket

HERE = "tests.audit.networks"
SMALL = Options(
    f"{HERE}:dense", (f"{HERE}:dense",), tasks=("shapes", "textures"), shots=(1, 2), seeds=1, canvas=16, epochs=1,
    test_images=24, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _tasks_near_chance_count() -> Iterator[None]:
    """Random features read little, and a test of their costs needs some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "NEAR_CHANCE", 0.0)
        yield


@pytest.fixture(scope="module")
def itself() -> Audit:
    return audit(SMALL)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], catch_exceptions=False)


def small_call(*arguments: object) -> Result:
    flags = {"--tasks": "shapes,textures", "--shots": "1", "--seeds": 1, "--canvas": 16, "--epochs": 1, "--test-images": 12}
    return call("--dense", f"{HERE}:dense", *(part for pair in flags.items() for part in pair), *arguments)


def test_a_network_against_itself_is_exactly_zero(itself: Audit) -> None:
    (found,) = itself.findings
    assert {each[1] for each in found.primary} == {"vp", "lp"} == {method for _, method in found.secondary}
    known = [e for e in found.secondary.values() if np.isfinite(e.mean)]
    assert len(known) > 20
    assert {(e.mean, e.low, e.high) for e in known} == {(0.0, 0.0, 0.0)}
    assert found.primary["accuracy_loss", "lp"].verdict == "no relevant effect"
    assert found.agreement == 1.0
    assert itself.warnings == (
        f"{HERE}:dense: its weights are those of the dense network, to the bit: nothing is compressed",
    )


def test_the_same_seeds_give_the_same_page(itself: Audit) -> None:
    again = audit(SMALL)
    still = [
        dataclasses.replace(each, timing={"images_a_second": [1, 1], "seconds": 1}, made={}) for each in (itself, again)
    ]
    still = [dataclasses.replace(each, rows=tuple({**row, "seconds": 0} for row in each.rows)) for each in still]
    assert page(still[0]) == page(still[1])
    first, second = map(numbers, still)
    assert first == second


def test_the_workers_of_a_scheduler_measure_the_same(itself: Audit) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is an extra: cluster")
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, scheduler_kwargs=quiet) as cluster:
        there = audit(dataclasses.replace(SMALL, scheduler=cluster.scheduler_address))
    rows = [[{**row, "seconds": 0} for row in each.rows] for each in (itself, there)]
    assert rows[0] == rows[1]
    assert there.findings == itself.findings
    with pytest.raises(InputError, match="`scheduler` must be the address of a Dask scheduler"):
        audit(dataclasses.replace(SMALL, scheduler="host"))


def test_the_page_needs_nothing_else(itself: Audit) -> None:
    text = page(itself)
    assert re.findall(r"(?:src|href)\s*=\s*['\"](?!#)", text) == []
    assert set(re.findall(r"https?://[\w./-]+", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/1999/02/22-rdf-syntax-ns",
        "http://purl.org/dc/elements/1.1/", "http://creativecommons.org/ns", "http://purl.org/dc/dcmitype/StillImage",
        "https://matplotlib.org/", "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
    }  # fmt: skip
    assert text.count("<svg") == 3
    assert "own task" in text


def test_every_number_is_there(itself: Audit) -> None:
    found = json.loads(json.dumps(numbers(itself), allow_nan=False))
    assert found["exit_code"] == EXIT[found["verdict"]]
    assert len(found["runs"]) == 2 * 2 * 2 * 2  # networks, methods, tasks, budgets
    primary = {(one["cost"], one["method"]) for one in found["findings"][0]["primary"]}
    assert primary == set(PRIMARY)
    for one in found["findings"][0]["primary"] + found["findings"][0]["secondary"]:
        assert {"mean", "low", "high", "n"} <= one.keys()


def test_from_the_command_line_to_files_and_exit_codes(tmp_path: Path) -> None:
    told = small_call("--compressed", f"{HERE}:pruned", "--output", tmp_path / "a")
    assert told.exit_code in EXIT.values()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"index.html", "numbers.json", "badge.svg"}
    content = json.loads((tmp_path / "a" / "numbers.json").read_text())
    assert told.exit_code == content["exit_code"]
    assert content["verdict"] in (tmp_path / "a" / "badge.svg").read_text()
    assert f"pruned: {content['verdict']}" in told.output
    facts = content["networks"][1]
    assert facts["weights_left"] == facts["weights"] - round(0.75 * 32 * 16 * 9)  # the one layer between stem and head
    assert facts["bytes"] < content["networks"][0]["bytes"]
    assert facts["multiplications_left"] < facts["multiplications"] == content["networks"][0]["multiplications"]


def test_files_of_each_kind_are_read(tmp_path: Path) -> None:
    """And weigh the same, whoever wrote them."""
    network, sparse = networks.dense(), networks.pruned()
    masks = prune(network, density=0.25)
    save_ticket(tmp_path / "ticket.safetensors", sparse, masks)
    torch.save(sparse.state_dict(), tmp_path / "state.pth")
    save_file({name: value.clone() for name, value in sparse.state_dict().items()}, tmp_path / "state.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "of_authors_checkpoint.pth")
    torch.save({f"{name}_mask": mask.float() for name, mask in masks.items()}, tmp_path / "of_authors_mask.pth")
    torch_prune.custom_from_mask(network[3], "weight", masks["3.weight"])
    torch.save(network.state_dict(), tmp_path / "torch.pth")
    names = ("ticket.safetensors", "state.pth", "state.safetensors", "of_authors_checkpoint.pth", "torch.pth")
    read = [read_network(str(tmp_path / name), canvas=16, model=f"{HERE}:dense") for name in names]
    read.append(read_network(f"{HERE}:dense@{tmp_path / 'state.pth'}", canvas=16))
    assert len({tuple(each.facts.items()) for each in read}) == 1
    assert read[0].facts["weights_left"] < read[0].facts["weights"]
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for each in read[1:]:
        assert torch.equal(each.frozen(images), read[0].frozen(images))


def test_networks_of_libraries_are_read(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=7).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="use squeezenet1_1@FILE, squeezenet1_1@torchvision:NAME"):
        read_network("squeezenet1_1", canvas=32)
    with pytest.raises(InputError, match="unknown weights of torchvision for squeezenet1_1: 'IMAGENET'"):
        read_network("squeezenet1_1@torchvision:IMAGENET", canvas=32)
    assert read_network("resnet8@random", canvas=32).frozen.classes == 1000


def test_classes_in_another_order_cost_a_probe_nothing_and_are_noted() -> None:
    found = audit(dataclasses.replace(SMALL, compressed=(f"{HERE}:permuted",), shots=(1,)))
    (one,) = found.findings
    loss = one.primary["accuracy_loss", "lp"].estimate
    assert (loss.mean, loss.low, loss.high) == (0.0, 0.0, 0.0)
    assert one.agreement < 1
    assert any("are its classes in another order?" in note for note in found.warnings)


def test_where_no_gradients_pass_prompting_is_left_out_and_the_page_says_so() -> None:
    found = audit(dataclasses.replace(SMALL, compressed=(f"{HERE}:integer",), shots=(1,)))
    assert {each[1] for each in found.findings[0].primary} == {"lp"}
    assert any(
        lack.startswith(f"visual prompting of {HERE}:integer, since no gradient passes") for lack in found.not_measured
    )
    assert "since no gradient passes" in page(found)


def test_images_of_ones_own(tmp_path: Path) -> None:
    """A folder without train and test: a drawn fifth is test, another part is for validation."""
    for label, colour in enumerate(("red", "green", "blue")):
        for number in range(20):
            path = tmp_path / "photos" / colour / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = np.full((20, 20, 3), 5 * number, dtype=np.uint8)
            shade[..., label] += 100
            Image.fromarray(shade).save(path)
    found = audit(dataclasses.replace(SMALL, tasks=(str(tmp_path / "photos"),), seeds=2))
    assert found.design.tasks == ("photos",)
    assert {row["images"] for row in found.rows} == {12}
    assert all("temperature" in row for row in found.rows)
    assert found.findings[0].primary["accuracy_loss", "lp"].estimate.scope == "other seeds, on this chain and task"


def test_folders_that_are_none_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """A missing one, one without classes, two of one name; and a file where the page would go."""
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "1.png")
    for name in ("a", "b"):
        for label in ("red", "blue"):
            path = tmp_path / name / "photos" / label / "1.png"
            path.parent.mkdir(parents=True)
            for number in range(5):
                Image.new("RGB", (8, 8), label).save(path.with_name(f"{number}.png"))
    given = "--compressed", f"{HERE}:pruned", "--images"
    for arguments, message in (
        ((*given, tmp_path / "none"), "'--images': Directory"),
        ((*given, tmp_path / "flat"), "`--images` must be a folder of class folders"),
        ((*given, tmp_path / "a" / "photos", "--images", tmp_path / "b" / "photos"), "must differ in their names"),
        ((*given[:2], "--output", tmp_path / "flat" / "1.png"), "'--output': Directory"),
    ):
        told = small_call(*arguments)
        assert told.exit_code == 2, told.output
        assert message in told.output
    photos = read_task(str(tmp_path / "a" / "photos" / ".." / "photos"), data=None, shots=9, test_images=90)
    assert photos.name == "photos"
    assert {split: len(photos.read(split, 8)) for split in photos.sizes} == photos.sizes  # from which the time is told


def test_a_network_that_reads_its_own_task_by_chance_is_noted(tmp_path: Path) -> None:
    """Of images that are all alike, a network reads just one class in sixteen."""
    for label in range(16):
        (tmp_path / "letters" / f"{label:02}").mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / "letters" / f"{label:02}" / f"{number}.png")
    given = dataclasses.replace(SMALL, own_task=str(tmp_path / "letters"), tasks=("shapes",), shots=(1,), epochs=1)
    assert any("it reads 6.2% of letters, its own task, which is near chance" in note for note in audit(given).warnings)


def test_a_task_with_fewer_images_than_shots_is_noted() -> None:
    found = audit(dataclasses.replace(SMALL, tasks=("shapes", "textures"), shots=(1, 100)))
    assert any(note.startswith("shapes: some classes have fewer than 100 images") for note in found.warnings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compressed", f"{HERE}:other_classes"), "must have the same classes, but tests.audit.networks:dense has 16"),
        (("--compressed", f"{HERE}:broken"), "must give finite numbers"),
        (("--compressed", "nothing.pth"), "there is no file nothing.pth"),
        (("--compressed", "resnet18"), "use resnet18@FILE, resnet18@torchvision:NAME"),
        (("--compressed", f"{HERE}:nothing"), "must be a function without arguments"),
        (("--compressed", f"{HERE}:pruned", "--margin", "2"), "`--margin` must be in (0, 1), got 2"),
        (("--compressed", f"{HERE}:pruned", "--budget", "soon"), '`--budget` must be a time, such as "10 min"'),
        (("--compressed", f"{HERE}:pruned", "--shots", "few"), "`--shots` must be whole numbers with commas"),
        (("--compressed", f"{HERE}:pruned", "--tasks", "shape"), "'shape' is not built in"),
        (("--compressed", f"{HERE}:pruned", "--shots", ""), "`--shots` must be whole numbers with commas"),
        (("--compressed", f"{HERE}:pruned", "--own-task", "shapes"), "must have the 16 classes"),
    ],
)  # fmt: skip
def test_bad_input_has_exit_code_2(arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPCORE_DATA", raising=False)
    told = small_call(*arguments)
    assert told.exit_code == 2
    assert message in told.output
    assert told.output.splitlines()[-1].startswith("vpcore: ")


@pytest.mark.parametrize(("verdict", "code"), [(CLEAN, 0), (COST, 3), (OPEN, 4)])
def test_the_verdict_is_the_exit_code(
    itself: Audit, verdict: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dataclasses.replace(itself, findings=(dataclasses.replace(itself.findings[0], verdict=verdict),))
    monkeypatch.setattr(own_audit, "found_by", lambda options, log: found)
    monkeypatch.setattr(page_module, "page", lambda audit: "")
    told = call("--dense", "a", "--compressed", "b", "--quiet", "--output", tmp_path)
    assert told.exit_code == code
    assert verdict in (tmp_path / "badge.svg").read_text()


def test_a_state_dict_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(networks.other_classes().state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="missing"):
        read_network(str(tmp_path / "other.pth"), canvas=16, model=f"{HERE}:dense")
    with pytest.raises(InputError, match="use --model NAME"):
        read_network(str(tmp_path / "other.pth"), canvas=16)


def made_up(loss: float, rise: float, *, noise: float = 0.01, seed: int = 0) -> list[dict[str, object]]:
    """Rows of ten tasks in which compression costs so much."""
    draw = np.random.default_rng(seed)
    shared = {"classes": list("ab"), "images": 300, "budget": 1, "seed": 0, "train_images": 2, "val_accuracy": 0.9}
    rows = []
    for task in "abcdefghij":
        for method in ("vp", "lp"):
            for number in (0, 1):
                found = {"accuracy": 0.8 - number * loss, "ece": 0.1 + number * rise, "confidence": 0.8}
                found = {name: value + noise * draw.normal() for name, value in found.items()}
                rows.append({**shared, **found, "network": number, "round": number, "method": method, "task": task})
    return rows


@pytest.mark.parametrize(
    ("loss", "rise", "noise", "word"),
    [
        (0.05, 0.0, 0.01, COST), (0.0, 0.05, 0.01, COST), (0.0, 0.0, 0.001, CLEAN), (-0.05, 0.0, 0.001, CLEAN),
        (0.0, 0.0, 0.05, OPEN),
    ],
)  # fmt: skip
def test_verdicts(loss: float, rise: float, noise: float, word: str) -> None:
    assert judge(made_up(loss, rise, noise=noise), 1).verdict == word


def test_the_margin_decides_what_is_relevant() -> None:
    rows = made_up(0.02, 0.0, noise=0.001)
    assert judge(rows, 1, margin=0.01).verdict == COST
    assert judge(rows, 1, margin=0.05).verdict == CLEAN


def test_seeds_that_agree_on_few_test_images_are_not_certain() -> None:
    """Two seeds that lose one image in twenty each have seen no more than one step of accuracy."""
    rows = [row for row in made_up(0.05, 0.0, noise=0.0) if row["task"] == "a" and row["method"] == "lp"]
    rows = [{**row, "seed": seed, "images": 20} for row in rows for seed in (0, 1)]
    judged = judge(rows, 1).primary["accuracy_loss", "lp"]
    assert judged.verdict != SUPPORTED
    assert judged.estimate.low < 0 < judged.estimate.high
    assert judge([{**row, "accuracy": 0.8} for row in rows], 1).primary["accuracy_loss", "lp"].estimate.high == 0


def test_a_task_near_chance_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "NEAR_CHANCE", 1.5)
    rows = [{**row, "val_accuracy": 0.6 if row["task"] == "a" else 0.9} for row in made_up(0.0, 0.0)]
    found = judge(rows, 1)
    assert found.left_out == {"vp": ["a"], "lp": ["a"]}
    assert found.primary["accuracy_loss", "vp"].estimate.n == 9


@pytest.mark.slow
def test_equal_networks_are_rarely_found_costly() -> None:
    costly = sum(judge(made_up(0.0, 0.0, noise=0.02, seed=seed), 1).verdict == COST for seed in range(100))
    assert costly <= 9  # at most 5 % are expected; 9 or fewer of 100 in 97 % of the cases


@pytest.mark.slow
def test_the_effect_that_the_page_calls_detectable_is_found_with_its_power() -> None:
    """In four cases of five, where compression costs just so much accuracy under a prompt, and nothing else."""
    contrast, times = ("accuracy_loss", "vp"), 60
    harmless = [judge(made_up(0.0, 0.0, noise=0.02, seed=seed), 1).primary[contrast] for seed in range(20)]
    loss, found = float(np.mean([each.estimate.detectable() for each in harmless])), 0
    for seed in range(times):
        rows = made_up(0.0, 0.0, noise=0.02, seed=1000 + seed)
        costly = [{**row, "accuracy": row["accuracy"] - loss * (row["network"] and row["method"] == "vp")} for row in rows]
        found += judge(costly, 1).primary[contrast].verdict == SUPPORTED
    assert 0.64 <= found / times <= 0.96  # 0.8, within three standard errors


def test_names_that_are_alike_get_numbers(itself: Audit) -> None:
    assert tables.labels(numbers(itself)) == ["dense (0)", "dense (1)"]


def test_a_network_that_weighs_as_much_is_noted() -> None:
    dense, other = (read_network(f"{HERE}:{name}", canvas=16) for name in ("dense", "permuted"))
    assert compared(dense, other).notes == (
        "it needs as many bytes as the dense network: few weights are zero, and none has fewer bits",
    )


@pytest.mark.parametrize(("text", "value"), [("10 min", 600), ("90 s", 90), ("1 hour", 3600), ("2 hours", 7200), ("5", 300)])
def test_times(text: str, value: float) -> None:
    assert seconds_of(text) == value


def test_the_design_is_the_best_that_fits(itself: Audit) -> None:
    largest = dataclasses.replace(itself.design, tasks=tuple("abcd"), shots=(1, 4), seeds=(0,))
    speeds, images = [Speed(0.01, 0.02)] * 2, {"val": 100, "test": 24, "corrupted": 200}
    tasks = [Task(name, tuple("0123456789"), images, print) for name in largest.tasks]
    widths = []
    for limit in (20, 100, 500, 2500):
        design = choose(largest, speeds, tasks, limit=limit)
        assert seconds(design, speeds, tasks[: len(design.tasks)]) <= limit
        sizes = {"tasks": len(design.tasks), "shots": len(design.shots), "seeds": len(design.seeds)}
        widths.append((design.methods[0] == "lp", half_width(design.methods[0], **sizes)))
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    many = choose(largest, speeds, tasks, limit=40)  # enough for two tasks with prompts, or for all without
    assert (many.tasks, many.methods) == (tuple("abcd"), ("lp",))


def test_no_width_without_spread() -> None:
    assert half_width("vp", tasks=1, shots=3, seeds=1) == np.inf
    assert half_width("vp", tasks=4, shots=1, seeds=1) > half_width("vp", tasks=8, shots=1, seeds=1)
    assert half_width("vp", tasks=4, shots=1, seeds=1) > half_width("vp", tasks=4, shots=1, seeds=4)


def test_the_examples_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LETTERS", 2)
    examples.letters.cache_clear()
    dense, pruned = (read_network(f"vpcore.audit.examples:{name}", canvas=32) for name in ("letters", "letters_pruned"))
    examples.letters.cache_clear()
    kept = dense.facts["weights"] - pruned.facts["weights_left"]
    assert kept == pytest.approx(0.9 * (64 * 32 + 128 * 64) * 9, abs=1)  # between the stem and the classifier


@pytest.mark.slow
def test_the_network_of_torchvision_is_pruned_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LETTERS", 1)
    monkeypatch.setattr(examples, "LONGER", examples.RECIPE)
    examples.shufflenet.cache_clear()
    names = ("shufflenet", "shufflenet_pruned")
    dense, pruned = (read_network(f"vpcore.audit.examples:{name}", canvas=96) for name in names)
    examples.shufflenet.cache_clear()
    gone = pruned.facts["weights"] - pruned.facts["weights_left"]
    assert gone == pytest.approx(0.3 * (dense.facts["weights"] - 48 * 1024), rel=1e-3)  # of convolutions
    assert pruned.facts["multiplications_left"] < dense.facts["multiplications"]


@pytest.mark.slow
def test_the_networks_of_imagenet_are_what_they_say() -> None:
    whole, five_lines = (read_network(f"vpcore.audit.examples:{name}", canvas=64) for name in ("lite0", "lite0_pruned"))
    assert whole.frozen.statistics == HALF
    assert five_lines.facts["weights_left"] < 0.82 * whole.facts["weights"]
    integer = read_network("vpcore.audit.examples:lite0_at_4_bits", canvas=64)
    assert (whole.facts["bits"], integer.facts["bits"]) == (32, 4)
    assert integer.facts["bytes"] < 0.2 * whole.facts["bytes"]
    assert integer.no_gradients == ""


def test_tables_say_what_the_numbers_say(itself: Audit, tmp_path: Path) -> None:
    """The same of an audit that was kept as of one that was just made."""
    (tmp_path / "a.json").write_text(json.dumps(numbers(itself)))
    kept, new = tables.kept(tmp_path), {"": numbers(itself)}
    found = tables.claims(new)
    assert tables.claims(kept) == [{"audit": "a", **row} for row in found]
    assert found[0]["points"] == "0.0 (0.0 to 0.0)"
    assert [row["network"] for row in tables.networks(new)] == ["dense (0)", "dense (1)"]
    assert [row["verdict"] for row in tables.networks(kept)] == ["", itself.verdict]


def test_options_of_a_notebook() -> None:
    fields = {each.name for each in dataclasses.fields(Options)} - {"data", "statistics"}
    cells = json.loads((Path(__file__).parents[2] / "notebooks" / "audit.ipynb").read_text())["cells"]
    parameters = assigned(next("".join(cell["source"]) for cell in cells if cell["id"] == "parameters"))
    assert fields <= set(parameters)
    assert options_of(parameters, data=None).compressed == ("vpcore.audit.examples:letters_pruned",)
