import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from imitation_jax.sandbox import sandbox
from imitation_jax.sandbox.sandbox import KINDS, PASSED, TIMED_OUT, Limits, Sandbox

ROOT = Path(__file__).resolve().parents[2]
QUICK = Limits(cpu_seconds=1, wall_seconds=2.5, memory_bytes=256 << 20)

# Each does its worst and then would pass, if it got away with it.
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "endless loop": "while True:\n    pass",
    "50 GB allocation": "held = bytearray(50 << 30)",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', 22), timeout=1)",
    "reading /etc/passwd": "open('/etc/passwd').read()",
    "writing outside": "open('/usr/lib/mark', 'w')",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "closing stdout": "import os, sys\nsys.stdout.close()\nos.close(1)",
    "monkeypatching assert": "import builtins\n"
    "builtins.AssertionError = builtins.Exception = builtins.BaseException = type('Quiet', (object,), {})\n"
    "builtins.exec = builtins.compile = print\n"
    "import os, sys\nos.write = sys.excepthook = lambda *ignored: 0",
    "sleeping threads": "import threading, time\n"
    "for _ in range(100):\n    threading.Thread(target=time.sleep, args=(1000,)).start()",
    "huge output": "while True:\n    print('x' * 1_000_000)",
    "exec of a shell": "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
}
WORDS = {
    "fork bomb": "PermissionError",
    "endless loop": TIMED_OUT,
    "50 GB allocation": "MemoryError",
    "network": "PermissionError",
    "reading /etc/passwd": "FileNotFoundError",
    "writing outside": "Read-only file system",
    "killing the parent": "PermissionError",
    "closing stdout": "failed",
    "monkeypatching assert": "failed",
    "sleeping threads": "can't start new thread",
    "huge output": "File too large",
    "exec of a shell": "PermissionError",
}


@pytest.fixture(scope="module", params=KINDS)
def box(request):
    try:
        return Sandbox(request.param, QUICK)
    except OSError as error:
        pytest.skip(f"{request.param} cannot be had here: {error}")


@pytest.fixture
def left_behind():
    """`left_behind()` are the processes that this test started, directly or not, and that are still there."""
    adopt = 36  # PR_SET_CHILD_SUBREAPER: whoever loses his parent becomes a child of this process
    ctypes.CDLL(None).prctl(adopt, 1, 0, 0, 0)
    before = descendants()

    def find(seconds=10.0):
        deadline = time.monotonic() + seconds
        while (left := descendants() - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    yield find
    for pid in descendants() - before:
        os.kill(pid, signal.SIGKILL)
    ctypes.CDLL(None).prctl(adopt, 0, 0, 0, 0)


def descendants():
    """Of this process; its own dead children are buried on the way."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        pid = int(stat.parent.name)
        if state == "Z" and int(parent) == os.getpid():
            os.waitpid(pid, os.WNOHANG)
        else:
            parents[pid] = int(parent)
    found, fresh = set(), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def test_mild_cases_first(box):
    """One fork, one thread, a little too much of everything: what the bombs below multiply."""
    assert box.run(["x = 1", "assert x == 1"]) == PASSED
    assert "PermissionError" in box.run(["import os", "os.fork()"])
    assert "can't start new thread" in box.run(["import threading\nthreading.Thread(target=print).start()"])
    assert "MemoryError" in box.run(["held = bytearray(300 << 20)"])
    assert box.run(["held = bytearray(100 << 20)"]) == PASSED
    assert box.run(["with open('/tmp/x', 'wb') as f:\n    f.write(bytes(3 << 20))\nprint('x' * 1000)"]) == PASSED
    assert "File too large" in box.run(["with open('/tmp/x', 'wb') as f:\n    f.write(bytes(5 << 20))"])
    full = "for k in range(9):\n    with open(f'/tmp/{k}', 'wb') as f:\n        f.write(bytes(3 << 20))"
    assert "No space left" in box.run([full])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_fail_in_bounded_time_and_leave_nothing(box, left_behind, name):
    if name == "fork bomb":  # nothing multiplies on this machine before a single fork is proven to fail
        assert "PermissionError" in box.run(["import os\nos.fork()"])
    start = time.monotonic()
    verdict = box.run([HOSTILE[name], "assert False" if name == "monkeypatching assert" else "pass"])
    assert WORDS[name] in verdict and verdict != PASSED
    assert time.monotonic() - start < 30  # seconds of one processor, on a machine that has other things to do
    assert not left_behind()


def test_what_is_written_inside_is_seen_nowhere_and_by_nobody(box, tmp_path):
    name = uuid.uuid4().hex
    assert box.run([f"open('/tmp/{name}', 'w').write('x')"]) == PASSED
    assert not Path("/tmp", name).exists()
    assert box.run([f"import os\nassert not os.path.exists('/tmp/{name}')"]) == PASSED
    for place in (tmp_path, Path("/dev"), Path("/")):
        assert "failed" in box.run([f"open('{place / name}', 'w').write('x')"])
        assert not (place / name).exists()
    assert "failed" in box.run([f"open('{__file__}').read()"])


@pytest.mark.parametrize(
    "ending",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "import os\nos._exit(0)",
        "import os\nprint('passed')\nos.closerange(0, 1000)",
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'passed')\n    except OSError:\n        pass",
        "import atexit, os\natexit.register(os._exit, 0)\nraise KeyboardInterrupt",
        "import signal\nsignal.raise_signal(signal.SIGTERM)",
        "import ctypes\nctypes.string_at(0)",
        "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute",
        "x = '''",
    ],
)
def test_only_the_end_of_the_last_source_is_a_pass(box, ending):
    assert box.run([ending, "pass"]).startswith("failed: ")


def test_sleepers_run_into_the_wall_clock(box, left_behind):
    assert box.run(["import time\ntime.sleep(1000)"]) == TIMED_OUT
    assert not left_behind()


def test_a_flood_on_the_judges_own_line_is_cut(box):
    flood = (
        "import os\nwhile True:\n    for fd in range(3, 64):\n        try:\n            os.write(fd, bytes(65536))\n"
    )
    assert box.run([flood + "        except OSError:\n            pass"]) != PASSED


def test_programs_have_numpy_and_the_same_dice(box):
    assert box.run(["import numpy as np\nassert np.linalg.inv(np.eye(200) * 2)[0, 0] == 0.5"]) == PASSED
    dice = "import random\nroll = random.random(), hash('a')\n"
    first = box.run([dice + "raise ValueError(roll)"])
    assert first == box.run([dice + "raise ValueError(roll)"]) and first.startswith("failed: ValueError: (0.8444218515")
    big = "x = 0\n" + "x += 1\n" * 20_000  # more than a pipe holds
    assert box.run([big, "assert x == 20_000"]) == PASSED


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_evaluation_takes_its_programs_with_it(kind, left_behind):
    code = (
        "from imitation_jax.sandbox.sandbox import Limits, Sandbox\n"
        f"box = Sandbox({kind!r}, Limits(wall_seconds=600.0))\n"
        "print('up', flush=True)\n"
        "box.run(['import time; time.sleep(600)'])"
    )
    before = descendants()  # other tests' helpers may still be there
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        if process.stdout.readline() != b"up\n":
            pytest.skip(f"{kind} cannot be had here")
        deadline = time.monotonic() + 30
        while len(descendants() - before) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(descendants() - before) >= 4  # the evaluation, the sandbox, its first process, the program
        process.kill()
    assert not left_behind()


@pytest.mark.parametrize("kind", KINDS)
def test_an_ordinary_user_has_it_too(kind):
    python = "/usr/bin/python3"
    run = [python, "-B", "-c", "import sys; from imitation_jax.evaluation import sandbox; print(sys.version_info[1])"]
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if os.getuid() != 0:
        pytest.skip("all other tests ran as one")
    options = {"cwd": "/", "env": {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}, "text": True}
    try:
        can = subprocess.run([*as_nobody, *run], capture_output=True, **options)
    except FileNotFoundError:
        pytest.skip("needs util-linux's setpriv")
    if can.returncode or int(can.stdout) < 11:
        pytest.skip("needs a Python 3.11 in /usr/bin and a repository that everybody can read")
    code = (
        "from imitation_jax.sandbox.sandbox import Limits, Sandbox\n"
        f"box = Sandbox({kind!r}, Limits())\n"
        "print(box.run(['pass']), box.run(['import os', 'os.fork()']), box.run(['assert False']), sep='|')"
    )
    done = subprocess.run([*as_nobody, python, "-B", "-c", code], capture_output=True, **options)
    if done.returncode:
        pytest.skip(f"{kind} cannot be had here: {done.stderr.splitlines()[-1]}")
    passed, forked, asserted = done.stdout.strip().split("|")
    assert passed == PASSED and "PermissionError" in forked and "AssertionError" in asserted


def test_refused_in_one_line_where_neither_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="no sandbox to run code in.*bwrap: no bwrap.*unshare: no setpriv.*apt-get") as at:
        sandbox.find_sandbox(QUICK)
    assert "\n" not in str(at.value)


def test_a_sandbox_that_does_not_start_is_no_verdict(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no new namespaces for you >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match="did not start.*no new namespaces for you"):
        Sandbox("bwrap", QUICK)


def test_a_sandbox_that_does_not_isolate_is_noticed(monkeypatch, tmp_path):
    """A bwrap that runs the program without any wall around it."""
    leaky = tmp_path / "bwrap"
    leaky.write_text(f'#!/bin/sh\nwhile [ "$1" != -s ]; do shift; done\nexec {sandbox.executable()} "$@"\n')
    leaky.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match="does not isolate"):
        Sandbox("bwrap", QUICK)
