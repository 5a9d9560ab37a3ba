"""Damage: every kind of file that vpcore seals is refused, or made anew, when anything that is read of it has changed."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from vpcore import Images, InputError
from vpcore.data.cache import cached
from vpcore.study import store as store_module
from vpcore.study.run import Run
from vpcore.study.store import Store
from vpcore.study.tables import read_table, write_table
from vpcore.weights.resumable import Progress, resume_, save_unfinished, unfinished_path
from vpcore.weights.tickets import read_ticket, write_ticket

MUTANTS = int(os.environ.get("VPCORE_MUTANTS", "40"))  # of each kind of file; the issue of a release asks for thousands
RUN = Run(method="lp", task="shapes", budget=1)
MASK = torch.tensor([[True, False, True], [True, True, False]])


def images() -> Images:
    return Images(torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4), torch.tensor([1, 0]), ("a", "b"))


def records(folder: Path) -> Path:
    values = {"accuracy": 0.5, "loss": [2.0, 1.0], "tag": "protocol-9", "finished": "2026"}
    Store(folder, "s").write((RUN,), [values], [{}])
    return Store(folder, "s").record_path(RUN)


def read_records(path: Path) -> object:
    store_module._read_records.cache_clear()  # which goes by the time of a file, and time stands still for so small ones
    return Store(path.parents[2], "s").records()


def predictions(folder: Path) -> Path:
    arrays = {"logits": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "labels": torch.tensor([0, 1, 2])}
    Store(folder, "s").write((RUN,), [{}], [arrays])
    return Store(folder, "s").arrays_path(RUN)


def read_predictions(path: Path) -> object:
    return Store(path.parents[2], "s").arrays(RUN)


def ticket(folder: Path) -> Path:
    write_ticket(folder / "t.safetensors", {"weight": torch.ones(2, 3) * MASK}, {"weight": MASK}, header={"round": 1})
    return folder / "t.safetensors"


def read_unfinished(path: Path) -> object:
    model, masks = nn.Linear(3, 2, bias=False), {"weight": torch.ones(2, 3, dtype=torch.bool)}
    progress = resume_(path.with_suffix(".safetensors"), model, masks, header={"round": 1}, first=0)
    return progress, dict(model.state_dict()), masks


def unfinished(folder: Path) -> Path:
    model = nn.Linear(3, 2, bias=False)
    nn.init.ones_(model.weight)
    save_unfinished(folder / "t.ticket", model, {"weight": MASK}, Progress(3, {"lr": 0.1}, [0.5]), header={"round": 1})
    return unfinished_path(folder / "t.ticket")


def pixels(folder: Path) -> Path:
    cached(folder / "task", images)
    return folder / "task.npy"


def facts(folder: Path) -> Path:
    return pixels(folder).with_suffix(".json")


def read_cached(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged file is told, and made again
        return vars(cached(path.with_suffix(""), images))


def table(folder: Path) -> Path:
    columns = {"id": ["a", "b"], "accuracy": [0.5, None], "bins": [[1, 2], [3]], "right": [b"\x01", b"\x02"]}
    write_table(folder / "t.parquet", pd.DataFrame(columns).assign(budget=pd.array([1, None], dtype="Int64")))
    return folder / "t.parquet"


@dataclass(frozen=True)
class Kind:
    """A kind of sealed file: what writes one into a folder, and what reads it."""

    write: Callable[[Path], Path]
    read: Callable[[Path], object]


KINDS = {
    "records": Kind(records, read_records),
    "predictions": Kind(predictions, read_predictions),
    "ticket": Kind(ticket, read_ticket),
    "unfinished": Kind(unfinished, read_unfinished),
    "pixels": Kind(pixels, read_cached),
    "facts of pixels": Kind(facts, read_cached),
    "table": Kind(table, read_table),
}


def plain(value: object) -> object:
    """Something that `==` compares, to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).tolist()
    if isinstance(value, pd.DataFrame):
        return value.dtypes.astype(str).to_dict(), value.to_json(default_handler=str)
    if isinstance(value, Progress):
        return plain(vars(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Ways in which a file is cut off, written over, or parts of it are lost, doubled, moved or made up."""
    start, size = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 16))
    made_up, bit = draw(st.binary(min_size=1, max_size=16)), draw(st.integers(0, 7))
    ways: dict[str, Callable[[bytes, int], bytes]] = {
        "bit": lambda content, at: content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :],
        "cut": lambda content, at: content[:at],
        "lost": lambda content, at: content[:at] + content[at + size :],
        "doubled": lambda content, at: content[: at + size] + content[at:],
        "made up": lambda content, at: content[:at] + made_up + content[at + len(made_up) :],
        "put in": lambda content, at: content[:at] + made_up + content[at:],
        "moved": lambda content, at: content[at:] + content[:at],
        "zeroed": lambda content, at: content[:at] + bytes(size) + content[at + size :],
    }
    way = ways[draw(st.sampled_from(sorted(ways)))]
    return lambda content: way(content, int(start * len(content)))


@pytest.mark.parametrize("name", KINDS)
def test_no_change_of_a_file_goes_unnoticed(name: str, tmp_path: Path) -> None:
    """It is refused by an error that names it, or made again as it was, or what was changed is nothing that is read."""
    kind = KINDS[name]
    path = kind.write(tmp_path)
    content, whole = path.read_bytes(), plain(kind.read(path))

    @settings(max_examples=MUTANTS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(mutations())
    def damaged(mutate: Callable[[bytes], bytes]) -> None:
        path.write_bytes(mutate(content))
        try:
            found, told = plain(kind.read(path)), ""
        except InputError as error:
            found, told = None, str(error)
        assert found == whole or path.name in told

    damaged()
    path.write_bytes(content)
    assert plain(kind.read(path)) == whole
