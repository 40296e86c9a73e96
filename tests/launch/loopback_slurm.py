"""A real Slurm of one node on the loopback interface."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
ReturnToService=2
KillWait=60
SchedulerParameters=sched_interval=2
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(what: Callable[[], bool], seconds: float = 300) -> None:
    """Until `what()` is true, which it must be after `seconds`."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


class Slurm:
    """A cluster of this machine alone, in `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        conf = CONF.format(host=socket.gethostname(), folder=folder, ports=free_ports(2), cores=os.cpu_count())
        (folder / "slurm.conf").write_text(conf)

    def __enter__(self) -> "Slurm":
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        files = [f"--{flag}={self.folder / name}" for flag, name in (files | {"seed-file": "seed"}).items()]
        self.daemon("munged", "--force", "--foreground", *files)
        self.wait(lambda: (self.folder / "munge.sock").exists())
        self.daemon("slurmctld", "-D")
        self.daemon("slurmd", "-D")
        self.wait(lambda: "idle" in self.run("sinfo", "--noheader"))
        return self

    def __exit__(self, *_) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait()

    def daemon(self, *argv: str) -> None:
        log = open(self.folder / f"{argv[0]}.out", "w")
        self.daemons.append(subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def run(self, *argv: str, **more: str) -> str:
        done = subprocess.run(argv, env=self.env | more, cwd=ROOT, capture_output=True, text=True)
        return done.stdout + done.stderr

    def wait(self, what, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not what():
            logs = "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))
            assert time.monotonic() < end, logs
            assert all(daemon.poll() is None for daemon in self.daemons), logs
            time.sleep(0.2)

    def sbatch(self, log: Path, *command: str, **more: str) -> str:
        """The number of a job of two tasks."""
        said = self.run("sbatch", "--ntasks=2", f"--output={log}", "launch/slurm.sh", *map(str, command), **more)
        assert (found := re.fullmatch(r"Submitted batch job (\d+)\n", said)), said
        return found[1]

    def job(self, number: str) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", number)))

    def ended(self, number: str) -> str:
        """How a job ended, once it has."""
        hurried = set()

        def over() -> bool:
            job = self.job(number)
            # Slurm lets two minutes pass before it starts a job again, so that its node has forgotten the last start.
            if job["Reason"] == "BeginTime" and job["Restarts"] not in hurried:
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now+3seconds")
                hurried.add(job["Restarts"])
            return job["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")

        self.wait(over)
        return self.job(number)["JobState"]
