"""The recipes of the page "Laptop, GPU, cluster": they do what the page says, with fakes for what this machine lacks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from tests.study.processes import ROOT
from tests.study.test_slurm import STUDY, free_ports, wait_for
from tests.study.test_workers import assert_same
from vpcore import InputError
from vpcore.study import workers
from vpcore.study.execution import execute
from vpcore.study.profile import load_profile
from vpcore.study.store import Store

distributed = pytest.importorskip("distributed")
RECIPES = ROOT / "book" / "cluster"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
TLS = "DASK_DISTRIBUTED__COMM__TLS__"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study; its PATH leads to this environment, and two GPUs are ours."""
    (tmp_path / "tiny.toml").write_text(STUDY)
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "nvidia-smi", "echo 0; echo 3")
    program(tmp_path / "bin" / "dask", f'exec {sys.executable} -m dask "$@"')
    program(tmp_path / "bin" / "python", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def sh(script: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        ["sh", "-c", script], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def test_the_certificate_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        env = sh(f". {RECIPES}/tls.sh && env", tmp_path).communicate()[0]
        assert {line.partition("=")[2] for line in env.splitlines() if line.startswith(TLS)} == {str(tmp_path / "tls.pem")}
        seen.append((tmp_path / "tls.pem").read_bytes())
    assert seen[0] == seen[1]
    assert (tmp_path / "tls.pem").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["tls.pem"]


@pytest.mark.slow
def test_a_node_has_a_worker_for_each_gpu_and_nobody_else_gets_in(project: Path) -> None:
    (port,) = free_ports(1)
    address = f"tls://127.0.0.1:{port}"
    scheduler = f"dask scheduler --protocol tls --host 127.0.0.1 --port {port} --no-dashboard"
    node = sh(f". {RECIPES}/tls.sh; {scheduler} & sh {RECIPES}/workers.sh {address}; wait", project)
    try:
        wait_for((project / "tls.pem").exists)
        ours = distributed.Security(tls_ca_file=str(project / "tls.pem"), tls_client_cert=str(project / "tls.pem"))
        with distributed.Client(address, security=ours, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["0", "3"]
            assert set(client.nthreads().values()) == {1}
        sh(f"cd {(other := project / 'bin')} && . {RECIPES}/tls.sh", project).communicate()
        theirs = distributed.Security(tls_ca_file=str(other / "tls.pem"), tls_client_cert=str(other / "tls.pem"))
        for where, security in ((address, theirs), (address.replace("tls", "tcp"), None)):
            with pytest.raises(OSError, match="Timed out|certificate|reset"):
                distributed.Client(where, security=security, timeout=2)
        with (
            pytest.raises(InputError, match="`scheduler` must be the address .* TLS needs"),
            workers.crew(1, address, False),
        ):
            pass
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.communicate()


@pytest.fixture
def reached_by_ssh(project: Path) -> Iterator[Path]:
    """The project of a user who gets from this machine to this machine by ssh."""
    if not SSHD:
        pytest.skip("needs an ssh server: apt-get install openssh-server")
    (folder := project / "ssh").mkdir(mode=0o700)
    (port,) = free_ports(1)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        f"StrictModes no\nPermitRootLogin prohibit-password\nSetEnv PYTHONPATH={ROOT}\n"
    )
    options = f"-p {port} -i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    program(project / "bin" / "ssh", f'exec {shutil.which("ssh")} {options} "$@"')
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-f", folder / "server"], stderr=subprocess.DEVNULL)
    yield project
    server.kill()
    server.wait()


@pytest.mark.slow
def test_a_study_by_ssh_is_that_of_one_machine(
    reached_by_ssh: Path, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "127.0.0.1")
    monkeypatch.setenv("PORT", str(free_ports(1)[0]))
    study = sh(f"exec sh {RECIPES}/ssh.sh localhost run --profile tiny.toml", reached_by_ssh)
    told = study.communicate(timeout=900)[0]
    assert (study.returncode, "jobs done, 0 failed" in told) == (0, True), told
    assert {f"{socket.gethostname()}-gpu{gpu}" in told for gpu in (0, 3)} == {True}
    card = load_profile(str(reached_by_ssh / "tiny.toml"))
    torch.set_num_threads(1)
    list(execute(card.runs, store, device=cpu))
    assert_same(Store(reached_by_ssh / "results", "tiny"), store, card.runs)


def test_the_manifest_is_one_that_kubernetes_takes() -> None:
    """By the schemas of Kubernetes itself, and what it names is there."""
    validator = pytest.importorskip("kubernetes_validate")
    parts = list(yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text()))
    for part in parts:
        validator.validate(part, validator.latest_version(), strict=True)
    kinds = {(part["kind"], part["metadata"]["name"]): part for part in parts}
    pods = {name: part["spec"]["template"] for (_, name), part in kinds.items() if "template" in part.get("spec", {})}
    assert set(pods) == {"vpcore-scheduler", "vpcore-workers", "vpcore-run"}
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
        assert ("PersistentVolumeClaim", volumes["shared"]["persistentVolumeClaim"]["claimName"]) in kinds
        assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in kinds
        if name != "vpcore-run":
            labels = kinds["Deployment", name]["spec"]["selector"]["matchLabels"]
            assert labels.items() <= pod["metadata"]["labels"].items()
    service = kinds["Service", "vpcore-scheduler"]["spec"]
    assert service["selector"] == pods["vpcore-scheduler"]["metadata"]["labels"]
    (port,) = pods["vpcore-scheduler"]["spec"]["containers"][0]["ports"]
    assert (service["ports"][0]["targetPort"], service["ports"][0]["port"]) == (port["name"], port["containerPort"])
    for name in ("vpcore-workers", "vpcore-run"):
        assert f"tls://vpcore-scheduler:{port['containerPort']}" in str(pods[name]["spec"]["containers"][0]["command"])
