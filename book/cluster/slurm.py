"""A study on the nodes of Slurm: Dask's scheduler is this process, its workers are jobs, submitted again as they end.

    . book/cluster/tls.sh
    python book/cluster/slurm.py --jobs 40 -- run --profile real --data DIR
    python book/cluster/slurm.py --jobs 8 --sbatch=--gres=gpu:1 --sbatch=--account=mine -- run --profile paper --data DIR

What follows `--` is a command of vpcore, `run` or `book`, without its `--scheduler`. A worker ends by itself before its time
is up, and what it did is begun again by another one, a training from its last epoch.
"""

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--jobs", type=int, default=4, help="jobs of Slurm that are kept running or waiting")
parser.add_argument("--cores", type=int, default=1, help="of a job; each is a worker")
parser.add_argument("--memory", type=int, default=4, help="of a worker, in GB")
parser.add_argument("--minutes", type=int, default=240, help="of a job")
parser.add_argument("--interface", help="of the network between the nodes, such as ib0")
parser.add_argument("--logs", help="folder for what workers say")
parser.add_argument(
    "--sbatch", action="append", default=[], help="an option of sbatch, such as --partition=long; may be repeated"
)
parser.add_argument("command", nargs="+", help="of vpcore, with its options")
given = parser.parse_args()

with SLURMCluster(
    protocol="tls://",
    cores=given.cores,
    processes=given.cores,
    memory=f"{given.memory * given.cores}GB",
    walltime=f"{given.minutes}",
    interface=given.interface,
    log_directory=given.logs,
    job_extra_directives=given.sbatch,
    worker_extra_args=["--memory-limit", "0", "--lifetime", f"{60 * given.minutes - 60}s", "--no-dashboard"],
    scheduler_options={"dashboard_address": "127.0.0.1:8787"},
) as cluster:
    cluster.adapt(minimum_jobs=given.jobs, maximum_jobs=given.jobs)
    vpcore = [sys.executable, "-m", "vpcore", *given.command, "--scheduler", cluster.scheduler_address]
    code = subprocess.run(vpcore).returncode
sys.exit(code)
