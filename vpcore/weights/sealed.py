"""Sealed tensors: a safetensors file that says which SHA-256 its content has, and is refused when it has another.

Its metadata hold two digests: `sha256` of the tensors with their names, types and shapes, and `sha256_meta` of the rest of
the metadata. Nothing else in such a file can change without a word: the format leaves no room for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vpcore.files import write_atomically

OF_TENSORS, OF_META = SEALS = "sha256", "sha256_meta"


def write_sealed(path: Path, tensors: dict[str, Tensor], meta: dict[str, str] | None = None) -> None:
    """Write tensors and texts that belong to them.

    Raises:
        WriteError: when the file cannot be written.
    """
    meta, tensors = dict(meta or {}), {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(tensors, metadata=meta | {OF_TENSORS: _digest(tensors), OF_META: _digest_of_meta(meta)}))


def read_sealed(path: Path, *, keys: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_sealed` wrote.

    Args:
        path: of the file.
        keys: of the metadata that it must have, and no others.

    Raises:
        ValueError, OSError, safetensors.SafetensorError: when the file is damaged, or is none of ours; with the reason.
    """
    meta, tensors = metadata(path), load_file(path)
    if set(meta) - {OF_META} != {*keys, OF_TENSORS}:
        raise ValueError(f"its metadata are {', '.join(meta) or 'empty'}")
    found = {OF_TENSORS: _digest(tensors), OF_META: _digest_of_meta(meta)}
    if wrong := [name for name in SEALS if name in meta and meta[name] != found[name]]:
        raise ValueError(f"it says that its SHA-256 is {meta[wrong[0]][:12]}..., its content has another")
    return tensors, meta


def metadata(path: Path) -> dict[str, str]:
    """The texts in a safetensors file; nothing is checked."""
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def _digest(tensors: dict[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())  # bytes of any kind, bfloat16 too
    return content.hexdigest()


def _digest_of_meta(meta: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(meta[name] for name in sorted(meta) if name not in SEALS).encode()).hexdigest()
