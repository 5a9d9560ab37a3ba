"""Files of weights: what is in them, under the names it has there, whatever form they are in.

    resnet50_dyn4_8_checkpoint.pth     a lottery ticket in the form of the paper's authors; its masks lie beside it in
                                       resnet50_dyn4_8_mask.pth, under the names of the weights
    *.pth                              a state dict, as torchvision publishes them
    *.pth with NAME_orig, NAME_mask    a network pruned with torch.nn.utils.prune
    *.pth of torchao                   a state dict with integers and scales, read as the numbers that they stand for
    *.safetensors                      a ticket of our own (`tickets`), or in place of *.pth in all lines above

A state dict may lie inside a larger checkpoint. A ticket of the authors' form without masks is refused: it would be taken
for a dense network. Only tensors are read (`weights_only`), so that a file cannot run code.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vpcore.errors import InputError
from vpcore.weights.tickets import State, is_ticket, read_ticket

NESTED = ("state_dict", "model")  # where larger checkpoints keep the weights
TICKET = re.compile(r"(.*)_checkpoint((\.\w+)*)")  # name and ending, .pth or .pth.tar, of a ticket of the authors' form


def read_weights(path: Path) -> tuple[State, dict[str, Tensor]]:
    """The state dict and the masks of a file, as they are named there; the masks are not yet applied.

    Raises:
        InputError: when a file is missing, damaged or holds more than tensors, or a ticket has no masks.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and is_ticket(path):
        return read_ticket(path)[:2]
    state = read_tensors(path)
    if not state:
        raise InputError(f"{path} must hold the weights of a network, but it is empty; copy it again, or name another")
    pruned = [name.removesuffix("_orig") for name in state if name.endswith("_orig") and f"{name[:-5]}_mask" in state]
    masks = {name: state.pop(f"{name}_mask") for name in pruned}
    state |= {name: state.pop(f"{name}_orig") for name in pruned}
    if not masks and (beside := masks_beside(path)):
        found = read_tensors(beside) if beside.exists() else {}
        masks = {name.removesuffix("_mask"): mask for name, mask in found.items()}
        if not masks:
            raise InputError(
                f"the ticket {path} needs its masks in {beside}, which {'is empty' if beside.exists() else 'is missing'}; "
                "copy it there, or rename the checkpoint if it is a dense network"
            )
    return state, masks


def file_digest(path: Path) -> str:
    """Twelve hexadecimal digits for the content of a file of weights and, if it has masks beside it, of these.

    Raises:
        InputError: when the file is missing.
    """
    content = hashlib.sha256()
    for part in (Path(path), masks_beside(path)):
        if part is not None and part.exists():
            content.update(part.read_bytes())
        elif part == Path(path):
            raise InputError(f"there is no checkpoint {path}; copy it there, or name another")
    return content.hexdigest()[:12]


def masks_beside(path: Path) -> Path | None:
    """Where the masks of a ticket of the authors' form lie; None for other files."""
    parts = TICKET.fullmatch(Path(path).name)
    return Path(path).with_name(f"{parts[1]}_mask{parts[2]}") if parts else None


def read_tensors(path: Path) -> State:
    """The tensors of a file, by name.

    Raises:
        InputError: when it is missing, damaged or holds more than tensors.
    """
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}; copy it there, or name another")
    safe = path.suffix == ".safetensors"
    try:
        content = load_file(path) if safe else _loaded(path)
    except Exception as error:  # noqa: BLE001 torch.load fails on rubbish in many ways
        raise InputError(
            f"{path} must be a file of {'safetensors' if safe else 'torch.save'} that holds tensors and nothing that runs "
            f"code; it is damaged or something else ({str(error).partition(chr(10))[0] or type(error).__name__}); "
            "copy it again, or save its state dict alone"
        ) from error
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        content = {f"a {type(content).__name__}": None}
    if strangers := [str(n) for n, value in content.items() if not isinstance(n, str) or not isinstance(value, Tensor)]:
        raise InputError(
            f"{path} must hold a state dict, name -> tensor, at the top or under {' or '.join(NESTED)}; "
            f"it holds {', '.join(strangers[:5])}; save its state dict alone"
        )
    return {name: plain(value) for name, value in content.items()}


def _loaded(path: Path) -> Any:
    """What torch.save has written; torchao makes its tensors known when it is imported."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "torchao" not in str(error):
            raise
        importlib.import_module("torchao.quantization")
        return torch.load(path, map_location="cpu", weights_only=True)


def plain(value: Tensor) -> Tensor:
    """A tensor of torchao, which holds integers and scales, as the numbers that it stands for; any other as it is."""
    return value.dequantize() if hasattr(value, "__tensor_flatten__") else value
