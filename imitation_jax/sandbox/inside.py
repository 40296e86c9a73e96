"""The program inside the sandbox: gives up all privileges, runs the sources that it is given, and reports the end.

It runs in a bare interpreter, without this package. Its argument is JSON: `limits` (of `sandbox.Limits`), `packages`
(folders to import from) and `root` (what is readable; null where bubblewrap has already built the root). Standard input
is a line with a length, so many bytes of JSON, a list of sources to run one after another in one namespace, and then a
token that stays unread. Standard output gets "R" before the first source runs, then the token once the last one has run
through, else what stopped it.
"""

import ctypes
import json
import os
import platform
import random
import resource
import struct
import sys

# What a program may not call, by its number on x86_64 and aarch64 (None: not there). With one process of one thread, a
# limit on its address space is one on all its memory, no limit on processes is needed, and nothing can stay behind.
FORBIDDEN = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "unshare": (272, 97),
    "setns": (308, 268),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "socket": (41, 198),
    # memory that belongs to no address space
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # ways into the kernel that plain programs never take
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "userfaultfd": (323, 282),
}
# AUDIT_ARCH of linux/audit.h, pivot_root's number; the order is that of the numbers above
MACHINES = {"x86_64": (0xC000003E, 155), "aarch64": (0xC00000B7, 41)}
X32_CALLS = 0x40000000  # x86_64's second set of numbers for the same calls
MOUNT_SETATTR = 442  # on every machine

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raises OSError after a C call that returned -1."""
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    names = [None if text is None else text.encode() for text in (source, target, kind)]
    check(libc.mount(*names, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def build_root(readable: list[str], limits: dict) -> None:
    """Makes a root of `readable`, all of it read-only, and an empty /tmp; needs a mount namespace of one's own."""
    read_only, no_suid, no_devices, no_exec, remount, bind, recursive = 1, 2, 4, 8, 32, 4096, 16384
    new = "/proc"  # always there, and nothing readable lies in it
    mount("tmpfs", new, "tmpfs", no_suid | no_devices, "size=1m,mode=755")
    for path in readable:
        target = new + path
        if os.path.isdir(path):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        mount(path, target, None, bind | recursive)
        wanted = read_only | no_suid | (0 if path.startswith("/dev/") else no_devices)
        attributes = struct.pack("QQQQ", wanted, 0, 0, 0)
        check(libc.syscall(MOUNT_SETATTR, -100, target.encode(), 0x8000, attributes, len(attributes)), f"seal {path}")
    os.mkdir(f"{new}/tmp")
    size = f"size={limits['disk_bytes']},nr_inodes=1024,mode=700"
    mount("tmpfs", f"{new}/tmp", "tmpfs", no_suid | no_devices | no_exec, size)
    os.chdir(new)
    # pivot_root(2): with both names ".", the old root lies over the new one and is taken off.
    check(libc.syscall(MACHINES[platform.machine()][1], b".", b"."), "pivot_root")
    check(libc.umount2(b".", 2), "umount the old root")
    mount("none", "/", None, remount | bind | read_only | no_suid | no_devices)
    os.chdir("/tmp")


def wait_as_init() -> None:
    """Forks and returns in the child; process 1 of the namespace waits for it and ends as it ended."""
    child = os.fork()
    if child:
        for number in (0, 1):
            os.close(number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)


def drop_privileges(limits: dict) -> None:
    """Limits this process for good: resources, capabilities, and a seccomp filter against the calls above."""
    cpu = limits["cpu_seconds"]
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("AS", limits["memory_bytes"], limits["memory_bytes"]),
        ("FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("NOFILE", 64, 64),
        ("NPROC", 1, 1),
        ("MEMLOCK", 0, 0),
        ("CORE", 0, 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)  # capabilities(7), version 3
    check(libc.capset(header, nothing), "capset")
    check(libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0))), "no_new_privs")

    # A BPF program, see seccomp(2): (code, jump if true, jump if false, constant).
    load, if_equal, if_at_least, give = 0x20, 0x15, 0x35, 0x06
    architecture, kill, allow, refuse = MACHINES[platform.machine()][0], 0x80000000, 0x7FFF0000, 0x00050001  # EPERM
    column = list(MACHINES).index(platform.machine())
    numbers = [pair[column] for pair in FORBIDDEN.values() if pair[column] is not None]
    steps = [(load, 0, 0, 4), (if_equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    steps.append((if_at_least, len(numbers) + 1, 0, X32_CALLS))
    steps += [(if_equal, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    steps += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    check(libc.prctl(22, ctypes.c_ulong(2), program, ctypes.c_ulong(0), ctypes.c_ulong(0)), "seccomp")


def read_sources() -> list[str]:
    """From standard input, and not a byte more."""
    length = b""
    while not length.endswith(b"\n"):
        length += os.read(0, 1)
    body = b""
    while len(body) < int(length):
        body += os.read(0, int(length) - len(body))
    return json.loads(body)


def run(sources: list[str], limits: dict) -> None:
    """Runs the sources and ends the process.

    The token lies unread in its pipe meanwhile: no frame, object or file has it. What the success path calls is bound
    beforehand, and everything that raises, SystemExit too, leads away from it.
    """
    token, result = os.dup(0), os.dup(1)
    null, output = os.open("/dev/null", os.O_RDWR), os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)
    random.seed(0)
    execute, read, write, leave, stdout = exec, os.read, os.write, os._exit, sys.stdout
    drop_privileges(limits)
    write(result, b"R")
    try:
        names: dict = {}
        # all compiled first, as what runs may replace compile
        for code in [compile(source, "<program>", "exec") for source in sources]:
            execute(code, names)
        stdout.write("\n")
        stdout.flush()  # raises where standard output was closed or overfull
    except BaseException as error:
        try:
            reason = f"{type(error).__name__}: {error}"
        except BaseException:
            reason = "an exception that cannot be printed"
        write(result, b"F" + reason.encode(errors="replace")[:1000])
    else:
        write(result, read(token, 100))
    leave(0)


def main() -> None:
    settings = json.loads(sys.argv[1])
    limits = settings["limits"]
    if settings["root"] is not None:
        build_root(settings["root"], limits)
        wait_as_init()
    sys.path += settings["packages"]
    run(read_sources(), limits)


if __name__ == "__main__":
    main()
