"""A stand-in for gcloud: the queue of Cloud TPU and the hosts of its slices as folders and processes of this machine.

FAKE_GCLOUD names the folder of its state. A command or flag that the reference does not have is refused. A request is
WAITING_FOR_RESOURCES, PROVISIONING and ACTIVE at three looks at it; its hosts have a home folder each, and `ssh` runs
there what it is given, at once on all of them. FAKE_GCLOUD/host_environment.json holds what hosts have in their
environment, with {host} and {hosts} filled in; FAKE_GCLOUD/commands.jsonl gets every command line.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/{create,delete,list,scp,ssh}, read in
# 2026-11; gcloud 528 has them all but create's --boot-disk. Flags with "=" take a value.
REFERENCE = {
    "create": """zone= runtime-version= accelerator-type= topology= type= node-id= node-count= node-prefix= async
        boot-disk= data-disk= description= guaranteed internal-ips labels= metadata= metadata-from-file= network= range=
        reserved scopes= service-account= shielded-secure-boot spot subnetwork= tags= valid-after-duration=
        valid-after-time= valid-until-duration= valid-until-time= reservation-host-folder=
        reservation-host-organization= reservation-host-project=""",
    "delete": "zone= async force",
    "list": "zone= filter= limit= page-size= sort-by= uri",
    "scp": """batch-size= compress dry-run force-key-file-overwrite node= plain recurse scp-flag= ssh-key-file=
        strict-host-key-checking= worker= zone= internal-ip tunnel-through-iap ssh-key-expiration=
        ssh-key-expire-after=""",
    "ssh": """batch-size= dry-run force-key-file-overwrite node= plain ssh-flag= ssh-key-file=
        strict-host-key-checking= worker= zone= command= output-directory= internal-ip tunnel-through-iap
        ssh-key-expiration= ssh-key-expire-after=""",
}
WIDE = """access-token-file= account= billing-project= configuration= flags-file= flatten= format= help
    impersonate-service-account= log-http project= quiet trace-token= user-output-enabled verbosity="""
GROUP = ["compute", "tpus", "queued-resources"]
STATES = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
HOSTS = 2  # of a slice, whatever its size


def parse(argv: list[str]) -> tuple[str, list[str], dict[str, str]]:
    """The command, its positional arguments and its flags.

    Raises:
      SystemExit: with gcloud's code 2, where gcloud's reference has no such command or flag.
    """
    if argv[:3] != GROUP or len(argv) < 4 or argv[3] not in REFERENCE:
        refuse(f"(gcloud) Invalid choice: {' '.join(argv[:4])!r}.")
    command, known = argv[3], (REFERENCE[argv[3]] + " " + WIDE).split()
    positional, flags = [], {}
    for argument in argv[4:]:
        if not argument.startswith("-"):
            positional.append(argument)
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        if name + equals not in known:
            refuse(f"(gcloud.compute.tpus.queued-resources.{command}) unrecognized arguments: {argument}")
        flags[name] = value
    if not (flags.get("zone") or os.environ.get("CLOUDSDK_COMPUTE_ZONE")):
        refuse("The required property [compute/zone] is not currently set.", 1)
    return command, positional, flags


def refuse(text: str, code: int = 2) -> None:
    print(f"ERROR: {text}", file=sys.stderr)
    sys.exit(code)


class Queue:
    """The requests and hosts below `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def request(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict:
        if not self.request(name).exists():
            refuse(f"NOT_FOUND: Resource 'queuedResources/{name}' was not found", 1)
        return json.loads(self.request(name).read_text())

    def write(self, name: str, **facts) -> None:
        self.request(name).write_text(json.dumps(facts))

    def home(self, name: str, host: int) -> Path:
        return self.folder / name / f"host-{host}"

    def create(self, name: str, flags: dict[str, str]) -> None:
        if "runtime-version" not in flags:
            refuse("argument --runtime-version: Must be specified.")
        if ("accelerator-type" in flags) == ("type" in flags and "topology" in flags):
            refuse("Exactly one of (--accelerator-type | --topology --type) must be specified.")
        if flags.get("type", "v4") not in ("v2", "v3", "v4"):
            refuse(f"argument --type: Invalid choice: {flags['type']!r}.")
        if ("node-id" in flags) == ("node-count" in flags):
            refuse("Exactly one of (--node-id | --node-count : --node-prefix) must be specified.")
        if self.request(name).exists():
            refuse(f"ALREADY_EXISTS: Resource 'queuedResources/{name}' already exists", 1)
        hosts = HOSTS * int(flags.get("node-count", 1))
        self.write(name, looks=0, state=STATES[0], hosts=hosts, flags=flags)

    def look(self, name: str) -> str:
        facts = self.read(name)
        if facts["state"] in STATES[:2]:
            facts["state"] = STATES[min(facts["looks"], 2)]
            facts["looks"] += 1
            self.write(name, **facts)
            if facts["state"] == "ACTIVE":
                for host in range(facts["hosts"]):
                    self.home(name, host).mkdir(parents=True, exist_ok=True)
        return facts["state"]

    def hosts(self, name: str, worker: str) -> list[int]:
        facts = self.read(name)
        if facts["state"] != "ACTIVE":
            refuse(f"Queued resource {name} is {facts['state']}: its nodes are not there.", 1)
        return list(range(facts["hosts"])) if worker == "all" else [int(worker)]

    def ssh(self, name: str, worker: str, command: str) -> int:
        template = json.loads((self.folder / "host_environment.json").read_text())
        every, started = self.read(name)["hosts"], []
        for host in self.hosts(name, worker):
            home = self.home(name, host)
            filled = {key: value.format(host=host, hosts=every) for key, value in template.items()}
            env = filled | {"HOME": str(home), "FAKE_HOST_OF": str(self.folder / name)}
            started.append(subprocess.Popen(["bash", "-c", command], cwd=home, env=env, stdin=subprocess.DEVNULL))
        return max(process.wait() for process in started)

    def scp(self, name: str, worker: str, file: str) -> None:
        for host in self.hosts(name, worker):
            shutil.copy(file, self.home(name, host))

    def processes(self, name: str) -> dict[int, tuple[str, str]]:
        """All processes of the hosts: number -> home folder and command line."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is not ours
                pairs = (process / "environ").read_bytes().split(b"\0")
                environment = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
                if environment.get(b"FAKE_HOST_OF", b"").decode() == str(self.folder / name):
                    line = (process / "cmdline").read_text().replace("\0", " ")
                    found[int(process.name)] = environment[b"HOME"].decode(), line
        return found

    def find(self, name: str, host: int, program: str) -> int:
        """The process that runs a Python program on a host."""
        home = str(self.home(name, host))
        (number,) = [
            number
            for number, (lives, line) in self.processes(name).items()
            if lives == home and f"-m {program} " in line and "launch/" not in line
        ]
        return number

    def take_away(self, name: str) -> None:
        """Kills everything on the hosts, and removes them."""
        for number in self.processes(name):
            with contextlib.suppress(OSError):  # it has ended
                os.kill(number, signal.SIGKILL)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def preempt(self, name: str) -> None:
        """What the test, not gcloud, does: capacity is taken away without a warning."""
        self.take_away(name)
        self.write(name, **(self.read(name) | {"state": "SUSPENDED"}))

    def delete(self, name: str, force: bool) -> None:
        if self.read(name)["state"] == "ACTIVE" and not force:
            refuse("FAILED_PRECONDITION: its nodes are still there; use --force", 1)
        self.take_away(name)
        self.request(name).unlink()


def main() -> int:
    command, positional, flags = parse(sys.argv[1:])
    queue = Queue(Path(os.environ["FAKE_GCLOUD"]))
    with open(queue.folder / "commands.jsonl", "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    if command == "create":
        queue.create(positional[0], flags)
    elif command == "list":
        for path in sorted(queue.folder.glob("*.json")):
            wanted = flags.get("filter", "name~.").removeprefix("name~")
            if path.stem != "host_environment" and re.search(wanted, f"locations/z/queuedResources/{path.stem}"):
                print(queue.look(path.stem))
    elif command == "ssh":
        return queue.ssh(positional[0], flags.get("worker", "0"), flags["command"])
    elif command == "scp":
        queue.scp(positional[1].partition(":")[0], flags.get("worker", "0"), positional[0])
    elif command == "delete":
        if "quiet" not in flags:
            refuse("(gcloud) nobody is there to be asked; use --quiet", 1)
        queue.delete(positional[0], "force" in flags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
