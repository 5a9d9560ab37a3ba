"""Provenance: where a record or a ticket comes from, the code and the machine.

How a sum is rounded depends on the type of processor and on the number of threads, so that numbers which are compared with
each other should agree in `PLACE`: the tag of the protocol, the device, the processor and the number of threads.
"""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vpcore.data.digests import digest_of, file_digest

PACKAGE = Path(__file__).parents[1]
APART = ("__main__.py", "audit", "bench", "cli.py", "commands", "report")  # what no number of a study depends on
PLACE = ("tag", "device", "processor", "threads")  # keys of `provenance` on which the last bits of a number depend


def provenance(device: torch.device) -> dict[str, object]:
    """Code, versions, machine and time; JSON can hold it.

    >>> sorted(provenance(torch.device("cpu")))
    ['commit', 'device', 'finished', 'processor', 'tag', 'threads', 'versions']
    """
    on_gpu = device.type == "cuda"
    return {
        "commit": commit(),
        "tag": tag(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "finished": now(),
    }


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def processor() -> str:
    """The name of the processor, as far as the system tells."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("vpcore", "torch", "torchvision", "numpy", "scipy", "pandas", "pillow")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


@functools.cache
def commit() -> str:
    """The commit of the code, with a + when the package in the working tree is another; "unknown" outside a checkout."""
    head = _git("rev-parse", "--short=10", "HEAD")
    if head is None:
        return archived()[0] or "unknown"
    return head + ("+" if _git("status", "--porcelain", "--", ".") else "")


@functools.cache
def code() -> str:
    """Twelve hexadecimal digits that stand for the code which computes a study, whatever is reported of it.

    >>> len(code())
    12
    """
    files = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*.py")}
    return digest_of(*((str(name), file_digest(files[name])) for name in sorted(files) if name.parts[0] not in APART))


@functools.cache
def tag() -> str:
    """The tag of the protocol that the code is at, such as protocol-1; empty at any other commit, or when it was changed."""
    if _git("rev-parse", "HEAD") is None:
        return next((name for name in archived()[1] if name.startswith("protocol-")), "")
    if _git("status", "--porcelain", "--", "."):
        return ""  # the code is another
    return _git("describe", "--tags", "--exact-match", "--match", "protocol-*") or ""


def archived(note: Path = PACKAGE.parent / ".git_archival.txt") -> tuple[str, list[str]]:
    """The commit and the tags that `git archive` wrote into an unpacked archive of the project; empty elsewhere."""
    text = note.read_text() if note.exists() else ""
    if not text or "$Format" in text:
        return "", []
    node, refs = (line.partition(":")[2].strip() for line in text.splitlines()[:2])
    return node[:10], re.findall(r"tag: ([^,]+)", refs)


def _git(*arguments: str) -> str | None:
    """What git answers, or None where there is no checkout, or git refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
