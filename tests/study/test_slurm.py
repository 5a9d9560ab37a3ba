"""A study on a Slurm that the test makes: two nodes on this machine, one of which is lost half-way.

The daemons are those of the system's packages (on Debian: slurm-wlm and munge); what a user does is the recipe of the book.
"""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.study.processes import ROOT
from tests.study.test_workers import assert_same
from vpcore.study.execution import execute
from vpcore.study.profile import load_profile
from vpcore.study.store import Store

psutil = pytest.importorskip("psutil")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "openssl") if not shutil.which(name, path=PATH)]
MISSING += [name for name in ("dask_jobqueue",) if not find_spec(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm: no {', '.join(MISSING)}; apt-get install slurm-wlm munge"),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmdTimeout=5
MailProg=/bin/true
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=1 RealMemory=4000
PartitionName=all Nodes=node[1-2] Default=YES
"""
STUDY = """
title = "Tiny"
about = "For a test."
[run]
source_per_class = 4
source_epochs = 20
source_batch = 64
test_per_class = 4
epochs = 2
budget = 1
task = "shapes"
[[grid]]
round = [0, 1]
method = ["vp", "lp"]
seed = [0, 1]
"""


def free_ports(count: int) -> list[int]:
    """So many ports in a row on which nobody listens."""
    while True:
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            first = opened.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                opened.enter_context(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + count))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, subprocess.Popen]]:
    """The daemons of a Slurm with two nodes of one core, by their names; its commands find it by SLURM_CONF."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path, since sockets have names of 107 bytes at most
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(os.urandom(64))
    values = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser(), "ports": free_ports(3)}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, **values))
    for name, value in {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = {
        "munged": ["munged", "-F", "--force", *(f"--{option}={folder}/munge.{end}" for option, end in munge.items())],
        "slurmctld": ["slurmctld", "-D"],
        "node1": ["slurmd", "-D", "-N", "node1"],
        "node2": ["slurmd", "-D", "-N", "node2"],
    }
    daemons: dict[str, subprocess.Popen] = {}
    try:
        for name, command in commands.items():
            with (folder / f"{name}.out").open("wb") as told:
                daemons[name] = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
            if name == "munged":
                wait_for(lambda: (folder / "munge.socket").exists())
        try:
            wait_for(lambda: asked("sinfo", "-h", "-o", "%T %D") == "idle 2", seconds=60)
        except AssertionError:
            told = "".join((folder / f"{name}.out").read_text()[-300:] for name in commands)
            pytest.skip(f"the daemons of Slurm do not come up on this machine: {told}")
        yield daemons
    finally:
        asked("scancel", "--user", getpass.getuser())
        for daemon in reversed(daemons.values()):
            daemon.kill()
            daemon.wait()
        for process in of_node("node1") + of_node("node2"):
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(true: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def asked(*command: str) -> str:
    """What a command of Slurm answers."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def of_node(name: str) -> list["psutil.Process"]:
    """The processes of jobs on a node of this Slurm."""
    found = []
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except psutil.Error:
            continue
        if (environ.get("SLURMD_NODENAME"), environ.get("SLURM_CONF")) == (name, os.environ["SLURM_CONF"]):
            found.append(process)
    return found


def lose_the_busiest_node(daemons: dict[str, subprocess.Popen]) -> str:
    """Kill the daemon of the node that computes, and all that runs there; its name."""
    used = {name: max(p.cpu_times().user for p in of_node(name)) for name in ("node1", "node2") if of_node(name)}
    lost = max(used, key=used.__getitem__)
    daemons[lost].kill()
    for process in of_node(lost):
        process.kill()
    return lost


def test_a_study_on_slurm_survives_the_loss_of_a_node(
    slurm: dict[str, subprocess.Popen], store: Store, tmp_path: Path, cpu: torch.device
) -> None:
    """Its jobs are made good by the other one, and the table is that of one machine, to the bit."""
    (tmp_path / "tiny.toml").write_text(STUDY)
    recipe = f"""
        . {ROOT}/book/cluster/tls.sh
        exec {sys.executable} {ROOT}/book/cluster/slurm.py --jobs 2 --memory 2 --logs logs -- run --profile tiny.toml
    """
    with subprocess.Popen(
        ["sh", "-c", recipe], cwd=tmp_path, env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as study:  # fmt: skip
        (late := threading.Timer(400, os.killpg, (study.pid, signal.SIGKILL))).start()
        told, lost = [], ""
        for line in study.stdout:
            told.append(line)
            if not lost and "epoch 1/20" in line:
                lost = lose_the_busiest_node(slurm)
        late.cancel()
    text = "".join(told)
    assert (study.returncode, lost[:4]) == (0, "node"), text
    assert re.search(r"tiny: \d+ jobs done, 0 failed", text), text
    assert len(re.findall("imp round 0, epoch 2/20", text)) == 1, text  # which the other node goes on from
    card, there = load_profile(str(tmp_path / "tiny.toml")), Store(tmp_path / "results", "tiny")
    torch.set_num_threads(1)
    list(execute(card.runs, store, device=cpu))
    assert_same(there, store, card.runs)
    wait_for(lambda: "R" not in asked("squeue", "-h", "-o", "%t"))  # the recipe has cancelled its jobs
