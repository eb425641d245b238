#!/usr/bin/env python3
"""A real Slurm of several nodes on this one machine, with GPUs that are none, for trying and testing.

    eval "$(python slurm/cluster.py start)"      # two nodes of 4 "CPUs" and 4 "GPUs"; sets SLURM_CONF
    sinfo; srun --nodes=2 hostname
    python -m experiments.launch cluster=mini experiment=dqn/cartpole
    python slurm/cluster.py stop                 # ends its jobs and daemons, and removes its folder

Debian's and Ubuntu's packages are used as they are; `start --install`, as root, installs what is missing. Everything
lies in one folder (by itself below the temporary folder), the ports are free ones and the key is its own: a Slurm or
a munge that already runs here is not touched, nor is any file of the system. The nodes are called 127.0.0.1, 127.0.0.2
and so on, which are addresses of this machine: `jax.distributed` finds its coordinator without a line in /etc/hosts.

Not root: the cluster runs jobs of its own user alone, which is all that one needs.
"""

import argparse
import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
DAEMONS = ("slurmctld", "slurmd", "munged")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CPUS, GPUS, MEMORY = 4, 4, 8000  # of a node, in megabytes; promised, not there
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # the GPUs
PATIENCE = 30.0  # seconds for daemons to start or end

CONFIG = """\
ClusterName=mini
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job starts once its old credential has expired: by itself after two minutes.
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=1
ReturnToService=2
JobRequeue=1
MinJobAge=3600
# A run's folder may know jobs of an earlier cluster: no number comes twice.
FirstJobId={job}
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
# A preempted job has GraceTime seconds from the signal that its --signal= names.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=127.0.0.[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} \
RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "stop", "check"), help="check: whether all it needs is installed")
    parser.add_argument("--folder", type=pathlib.Path, default=_default_folder(), help="of its state and logs")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--install", action="store_true", help="install the packages that are missing (root)")
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.what == "stop":
        stop(folder)
        return
    if missing() and given.install:
        install()
    if missing():
        packages = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        sys.exit(f"not installed: {', '.join(missing())}. On Debian and Ubuntu, as root: {packages}")
    if given.what == "start":
        print(f"export SLURM_CONF={start(folder, nodes=given.nodes)}")


def missing() -> list[str]:
    """The programs that are not there."""
    return [name for name in PROGRAMS if _path(name) is None]


def install() -> None:
    """Asks apt for the packages; ends the program where it cannot."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit("--install: needs root, and Debian's or Ubuntu's apt-get")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"apt-get {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")


def start(folder: pathlib.Path, *, nodes: int = 2) -> pathlib.Path:
    """Starts munge, the controller and the nodes' daemons; returns the configuration, for SLURM_CONF."""
    if (folder / "run").exists():
        sys.exit(f"{folder}: a cluster runs here, or was not stopped: slurm/cluster.py stop --folder {folder}")
    for name in ("state", "run", "log", *(f"spool/{node}" for node in _names(nodes))):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    configuration = _configure(folder, nodes)
    try:
        munge = ["--key-file=munge.key", "--socket=run/munge.socket", "--pid-file=run/munged.pid"]
        munge += ["--log-file=log/munged.log", "--seed-file=state/munge.seed"]
        # --force: a folder above may be private, which munge would refuse because others could not reach it
        _run("munged", "--force", *(option.replace("=", f"={folder}/") for option in munge))
        _run("slurmctld", "-f", str(configuration))
        for node in _names(nodes):
            start_node(configuration, node)
        if not _wait(lambda: _idle(configuration) == nodes):
            sys.exit(f"the nodes were not idle within {PATIENCE:g} s; see {folder}/log")
    except BaseException:
        stop(folder, keep_logs=True)
        raise
    return configuration


def start_node(configuration: pathlib.Path, node: str) -> None:
    """One node's daemon."""
    _run("slurmd", "-N", node, "-f", str(configuration))


def stop(folder: pathlib.Path, *, keep_logs: bool = False) -> None:
    """Cancels the jobs, ends the daemons that `start` left in `folder`, and removes it."""
    if not (folder / "run").is_dir():
        print(f"{folder}: no cluster here", file=sys.stderr)
        return
    configuration = folder / "slurm.conf"
    if (folder / "run" / "slurmctld.pid").exists():
        _ask(configuration, "scancel", f"--user={getpass.getuser()}")
        _wait(lambda: not _ask(configuration, "squeue", "--noheader"))
    _end([path for name in DAEMONS for path in (folder / "run").glob(f"{name}*.pid")])
    for number in _orphans(configuration):  # jobs on a node whose daemon was killed
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for path in (folder / "run", folder / "state") if keep_logs else (folder,):
        shutil.rmtree(path, ignore_errors=True)


def _configure(folder: pathlib.Path, nodes: int) -> pathlib.Path:
    control, first = _free_ports(1), _free_ports(nodes)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    path = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    values = {"control": control, "first": first, "last": first + nodes - 1, "nodes": nodes, "host": host}
    sizes = {"cpus": CPUS, "gpus": GPUS, "memory": MEMORY, "job": int(time.time()) % 60_000_000 + 1}
    path.write_text(CONFIG.format(folder=folder, user=getpass.getuser(), **values, **sizes))
    (folder / "gres.conf").write_text(f"NodeName=127.0.0.[1-{nodes}] Name=gpu File={','.join(DEVICES)}\n")
    return path


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("", port))
            return first
        except (OSError, OverflowError):
            continue


def _names(nodes: int) -> list[str]:
    return [f"127.0.0.{number + 1}" for number in range(nodes)]


def _idle(configuration: pathlib.Path) -> int:
    """How many nodes are."""
    return _ask(configuration, "sinfo", "--noheader", "--Node", "--partition=main", "--format=%t").split().count("idle")


def _ask(configuration: pathlib.Path, *command: str) -> str:
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _wait(done: Callable[[], bool]) -> bool:
    limit = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def _end(files: Sequence[pathlib.Path]) -> None:
    """Ends the daemons of these pid files and waits for them; a number that another program has is left alone."""

    def running() -> list[int]:
        return [number for number in numbers if _program(number) in DAEMONS]

    numbers = [int(path.read_text()) for path in files]
    for number in running():
        os.kill(number, signal.SIGTERM)
    if not _wait(lambda: not running()):
        for number in running():
            os.kill(number, signal.SIGKILL)


def _orphans(configuration: pathlib.Path) -> list[int]:
    """The processes that this cluster's jobs have left behind."""
    found, ours = [], f"SLURM_CONF={configuration}".encode()
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # another user's, or just gone
            variables = path.read_bytes().split(b"\0")
            number = int(path.parent.name)
            in_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
            if ours in variables and (in_job or _program(number) == "slurmstepd"):
                found.append(number)
    return found


def _program(number: int) -> str:
    """What a process runs, "" where there is none."""
    try:
        return pathlib.Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([_path(program) or program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{program}: {(done.stderr or done.stdout).strip()}")


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _default_folder() -> pathlib.Path:
    return pathlib.Path(tempfile.gettempdir()) / f"mini-slurm-{getpass.getuser()}"


if __name__ == "__main__":
    main()
