"""A real SLURM on this machine: munged, slurmctld and two slurmd on loopback, with GPUs that are device nodes alone.

    python tests/helpers/slurm.py -- COMMAND   # start it, run COMMAND in it, take it down
    python tests/helpers/slurm.py --hold       # start it, print its description as JSON, take it down at end of input

Everything lies in one temporary folder; /etc/slurm/slurm.conf, where job steps look, is a link to it while it runs.
However the caller ends, SIGKILL included, `--hold` sees the end of its input and cleans up; what an earlier one could
not clean, the next start finds and removes. One cluster at a time on a machine. Needs root and Debian's packages
(PACKAGES), which it installs where it may.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
LINK = Path("/etc/slurm/slurm.conf")
LUA = Path("/etc/slurm/job_submit.lua")
GUARD = Path(tempfile.gettempdir(), "rtt-slurm.lock")
MARK = "RTT_TEST_CLUSTER"  # in the environment of everything that belongs to a cluster: its folder
NODES = ("node1", "node2")
GPUS = 2  # of each node
GPU_MODEL = "tiny"
MEMORY = 6000  # MB of each node
CPUS = 4

# Seconds are short, so that faults are; what a job waits for after a requeue is the life of its credential.
CONF = """\
ClusterName=rtt
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={ctld}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobSubmitPlugins=lua
SlurmdParameters=config_overrides
SlurmctldTimeout=10
SlurmdTimeout=5
KillWait=10
MinJobAge=3600
ReturnToService=2
InactiveLimit=0
UnkillableStepTimeout=60
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=billed Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1
"""

# Partition `billed` refuses jobs without an account, as a cluster with accounting does; there is no slurmdbd here.
SUBMIT = """\
function slurm_job_submit(job, partitions, uid)
  if job.partition == "billed" and job.account == nil then
    slurm.log_user("You must specify an account")
    return slurm.ESLURM_INVALID_ACCOUNT
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""

# A stub: the executor asks it whether an account is known.
SACCTMGR = """\
#!/bin/sh
echo physics
"""


class Unavailable(Exception):
    """No cluster can be started here; the text says why."""


def install() -> None:
    """Install Debian's packages where they are missing. Raises Unavailable where that can't be done."""
    if all(map(shutil.which, DAEMONS)):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"SLURM is not installed: apt install {' '.join(PACKAGES)} (as root)")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
    if done.returncode or not all(map(shutil.which, DAEMONS)):
        raise Unavailable(f"apt-get could not install {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def wait_for(what: str, check, seconds: float = 120.0, every: float = 0.1):
    """Return check()'s first true value. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := check():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def members(folder: str) -> list[psutil.Process]:
    """Return the processes that belong to the cluster in `folder`, this one apart; the jobs' keepers first."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("slurmstepd"):  # has cleared its environment
                if any(path.startswith(f"{folder}/") for path in open_files(process)):
                    found.insert(0, process)
            elif process.pid != os.getpid() and process.environ().get(MARK) == folder:
                found.append(process)
    return found


def open_files(process: psutil.Process) -> list[str]:
    """Return the paths that a process has open, deleted ones too."""
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return found


def remove(folder: Path) -> None:
    """Kill what belongs to the cluster in `folder`, delete the folder and the links to it."""
    for _ in range(5):  # a daemon may start another process meanwhile
        alive = members(str(folder))
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, 5)
        if not alive:
            break
    for link in (LINK, LUA):
        if link.is_symlink() and Path(os.readlink(link)).parent == folder:
            link.unlink()
    shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """The daemons of one cluster. `folder` holds everything of it."""

    def __init__(self) -> None:
        self.folder = Path()
        self._started: list[subprocess.Popen] = []

    def environment(self) -> dict[str, str]:
        """Return what a client needs beside the usual variables."""
        # This interpreter's scripts too: steps call `python`.
        places = [self.folder / "bin", Path(sys.executable).parent, os.environ.get("PATH", os.defpath)]
        path = os.pathsep.join(map(str, places))
        return {MARK: str(self.folder), "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def describe(self) -> dict:
        """Return what a caller in another process needs."""
        return {"folder": str(self.folder), "environment": self.environment()}

    def start(self) -> None:
        """Start everything and wait until both nodes are idle. Raises Unavailable, TimeoutError."""
        install()
        if os.geteuid() != 0:
            raise Unavailable("a cluster is started by root")
        guard = os.open(GUARD, os.O_CREAT | os.O_WRONLY, 0o600)  # open, and so locked, until this process ends
        fcntl.flock(guard, fcntl.LOCK_EX)  # another cluster of ours is waited for
        if LINK.is_symlink():  # nobody holds the lock: its owner is dead
            remove(Path(os.readlink(LINK)).parent)
        if LINK.exists():
            raise Unavailable(f"{LINK} is there: this machine belongs to a cluster of its own")
        self.folder = Path(tempfile.mkdtemp(prefix="rtt-slurm-"))
        self.folder.chmod(0o755)
        self._write()
        LINK.parent.mkdir(parents=True, exist_ok=True)
        LINK.symlink_to(self.folder / LINK.name)
        LUA.symlink_to(self.folder / LUA.name)
        self._munge()
        self.controller()
        for node in NODES:
            self.node(node)
        wait_for("two idle nodes", lambda: self.states() == dict.fromkeys(NODES, "idle"))

    def _write(self) -> None:
        ctld, *ports = free_ports(1 + len(NODES))
        devices = []
        for node in NODES:
            for number in range(GPUS):
                devices.append(self.folder / f"{node}-gpu{number}")
                os.mknod(devices[-1], 0o666 | 0o020000, os.makedev(1, 3))  # a /dev/null each
        nodes = [
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY} "
            f"Gres=gpu:{GPU_MODEL}:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=True)
        ]
        conf = CONF.format(ctld=ctld, folder=self.folder, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(conf)
        gres = [
            f"NodeName={node} Name=gpu Type={GPU_MODEL} File={self.folder}/{node}-gpu[0-{GPUS - 1}]" for node in NODES
        ]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / LUA.name).write_text(SUBMIT)
        accounts = self.folder / "bin" / "sacctmgr"
        accounts.parent.mkdir()
        accounts.write_text(SACCTMGR)
        accounts.chmod(0o755)
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)

    def _run(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            environment = os.environ | self.environment()
            self._started.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            )

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {"socket": "munge.socket", "key-file": key.name, "pid-file": "munged.pid", "seed-file": "munged.seed"}
        flags = [f"--{flag}={self.folder / name}" for flag, name in names.items()]
        self._run("munged", "munged", "--foreground", "--force", f"--log-file={self.folder}/munged.log", *flags)
        wait_for("munge's socket", (self.folder / "munge.socket").exists)

    def controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._run("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait_for("slurmctld", lambda: self.call("scontrol", "ping", check=False).returncode == 0)

    def node(self, name: str) -> None:
        """Start a node's slurmd."""
        self._run(name, "slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"))

    def kill(self, name: str) -> None:
        """SIGKILL to slurmctld, or to a node as when it loses its power: its slurmd, and all that its jobs started."""
        for process in members(str(self.folder)):
            with contextlib.suppress(psutil.Error, OSError):
                command = process.cmdline()
                if process.name().startswith("slurmstepd"):
                    # Before its job, or it would tell the controller that the job has failed.
                    doomed = any(f"slurmd-{name}.log" in path for path in open_files(process))
                elif name in NODES:
                    doomed = command[:4] == ["slurmd", "-D", "-N", name]
                    doomed = doomed or process.environ().get("SLURMD_NODENAME") == name
                else:
                    doomed = command[:1] == [name]
                if doomed:
                    process.kill()

    def remember(self, seconds: int) -> None:
        """Let the controller forget jobs so long after their end; it looks once a minute."""
        path = self.folder / "slurm.conf"
        path.write_text(re.sub(r"MinJobAge=\d+", f"MinJobAge={seconds}", path.read_text()))
        self.call("scontrol", "reconfigure")

    def call(self, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
        """Run a client of SLURM."""
        environment = os.environ | self.environment() | variables
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=check, timeout=60)

    def states(self) -> dict[str, str]:
        """Return {node: state}."""
        listed = self.call("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T", check=False).stdout
        return dict(line.split() for line in listed.splitlines())

    def stop(self) -> None:
        """Take everything down."""
        if self.folder != Path():
            remove(self.folder)
        for process in self._started:
            process.wait()


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Hold a cluster in a process of its own, which takes it down however this one ends.

    Where none can be started, the test fails in CI and is skipped elsewhere.
    """
    import pytest

    command = [sys.executable, __file__, "--hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        said = json.loads(holder.stdout.readline() or '{"unavailable": "it ended"}')
        if why := said.get("unavailable"):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no SLURM cluster: {why}")
        cluster = Cluster()
        cluster.folder = Path(said["folder"])
        yield cluster
        holder.stdin.close()
        holder.wait(60)


def main() -> int:
    """Start a cluster and run a command in it, or hold it until the end of input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hold", action="store_true", help="until the end of input")
    parser.add_argument("command", nargs="*", help="after --")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    cluster = Cluster()
    try:
        try:
            cluster.start()
        except Unavailable as error:
            print(json.dumps({"unavailable": str(error)}) if args.hold else f"no cluster: {error}", flush=True)
            return 3
        if args.hold:
            print(json.dumps(cluster.describe()), flush=True)
            sys.stdin.read()
            return 0
        return subprocess.run(args.command, env=os.environ | cluster.environment()).returncode
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
