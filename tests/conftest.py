"""What the tests share: eight host devices, the lent data, the small real model, a tiny tokenizer, the commands."""

import contextlib
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
import tokenizers
from etils import epath
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from tokenizers import decoders, models, pre_tokenizers, trainers

from imitation_jax.tokenizers.tokenizer import Tokenizer

WORDS = """the river begins high in the mountains where snow melts slowly every spring and a small stream finds its way
down between stones and old trees farmers in the valley wait for its water because without it nothing grows on their
fields a list of three reasons helps first it is short second it is clear third it can be checked in summary the answer
is that water follows the easiest path and people follow the water"""
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bucket(monkeypatch):
    """gs:// as epath sees it is in memory; gives its file system."""

    class Bucket(MemoryFileSystem):
        store, pseudo_dirs = {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("gs://"))

    systems = {"gcs": Bucket(), "file": LocalFileSystem()}
    monkeypatch.setattr(type(epath.backend.fsspec_backend), "_get_filesystem", lambda self, name: systems[name])
    return systems["gcs"]


@pytest.fixture
def papers_grid(tmp_path):
    """configs/studies/false_promise.py with public data, as far as that is looked at before it is read."""
    config = runpy.run_path(str(ROOT / "configs" / "studies" / "false_promise.py"))["get_config"]()
    for name in ("sharegpt/sharegpt.json", "hc3/all.jsonl", "discord/export.json", "nq_synthetic/dialogues.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "mmlu").mkdir()
    config.public = str(tmp_path)
    return config


@pytest.fixture(scope="session")
def lent():
    """`lent("mmlu/dev")` is that path in the lent data, or skips the test saying what is missing."""
    folder = Path(os.environ.get("IMITATION_TEST_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"needs {name} in the folder that IMITATION_TEST_DATA names ({folder})")
        return path

    return find


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as launch/test.sh unpacks it, or skips."""
    path = Path(os.environ.get("IMITATION_TEST_GGUF", ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    if not path.exists():
        pytest.skip(f"needs the SmolLM2 GGUF file that IMITATION_TEST_GGUF names ({path}); launch/test.sh fetches it")
    return path


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> Path:
    """Folder of a byte-level BPE with at most 512 ids (what the preset "tiny" holds) and a ChatML template."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([WORDS, "assistant user system "] * 3, trainer)
    config = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>"
        "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    }
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer(backend, config).save(folder)
    return folder


@pytest.fixture(scope="session")
def write():
    """`write(path, rows)` or `write(path, row, ...)` writes JSON Lines (a text is a line already), gives the path."""

    def write(path: Path, *rows) -> str:
        if len(rows) == 1 and not isinstance(rows[0], dict | str):
            [rows] = rows
        texts = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(text if text.endswith("\n") else f"{text}\n" for text in texts), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def write_dialogues():
    """`write_dialogues(path, count)` fills `path` with dialogues of 1 to 4 turns of very different lengths."""

    def write(path: Path, count: int, seed: int = 0) -> Path:
        random, words = Random(seed), WORDS.split()
        with open(path, "w", encoding="utf-8") as file:
            for number in range(count):
                turns = []
                for _ in range(random.randint(1, 2)):
                    for role in ("user", "assistant"):
                        content = " ".join(random.choices(words, k=int(random.expovariate(1 / 12)) + 1))
                        turns.append({"role": role, "content": content})
                file.write(json.dumps({"id": str(number), "source": "test", "messages": turns}) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """`command("train", "--config=...", ...)` runs a command to its end in a process of its own, on one device.

    A name that ends in .py is a program's path.
    `command.start(...)` only starts it; both share caches for the session, so that programs compile once, and with
    little effort unless quick=False. `variables` are added to its environment.
    """
    cache = tmp_path_factory.mktemp("cache")

    def start(name: str, *args: str, devices: int = 1, quick: bool = True, variables=None, **options):
        env = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "IMITATION_CACHE": str(cache),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(quick),
            **(variables or {}),
        }
        program = [name] if name.endswith(".py") else ["-m", f"imitation_jax.{name}"]
        argv = [sys.executable, *program, *map(str, args)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, cwd=ROOT, env=env, text=True, **(pipes | options))

    def run(name: str, *args: str, **options) -> subprocess.CompletedProcess:
        process = start(name, *args, **options)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    run.start = start
    return run


class Together:
    """Several processes of one command on this machine."""

    def __init__(self, processes: list[subprocess.Popen], logs: list[Path]):
        self.processes, self.logs = processes, logs

    def said(self, index: int) -> str:
        """What a process has written, both outputs together."""
        return self.logs[index].read_text()

    def name(self, index: int) -> str:
        """What the others call a process; it says so when it starts."""
        return re.search(r"process \d+ of \d+ \(host \S+, pid \d+\)", self.said(index))[0]

    def send(self, index: int, number: int) -> None:
        """Sends a signal to the process that does the work, of which `processes` holds the parent."""
        os.kill(int(re.search(r"pid (\d+)", self.name(index))[1]), number)

    def wait_for(self, path: Path, lines: int) -> None:
        """Until a file has so many lines; the processes must not end before."""
        while not path.exists() or path.read_text().count("\n") < lines:
            assert all(process.poll() is None for process in self.processes), self
            time.sleep(0.02)

    def ended(self, seconds: float = 600) -> list[int]:
        """The exit codes; processes that have not ended after so many seconds are killed."""
        deadline = time.monotonic() + seconds
        for index, process in enumerate(self.processes):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # A stopped worker does not miss its parent, but the parent misses it.
                with contextlib.suppress(TypeError, ProcessLookupError, subprocess.TimeoutExpired):
                    self.send(index, signal.SIGKILL)
                    process.wait(20)
                process.kill()
                process.wait()
        return [process.returncode for process in self.processes]

    def error(self, index: int) -> str:
        """The error line of a process, which is the last that it wrote."""
        return self.said(index).splitlines()[-1].removeprefix("error: ")

    def __repr__(self) -> str:
        return "\n".join(f"--- process {i}\n{self.said(i)}" for i in range(len(self.logs)))


@pytest.fixture
def together(command, tmp_path_factory):
    """`together(["train", ...], 2)` starts a command as two processes of two devices that work as one.

    `each` gives further arguments by process, `variables` what is added to the environment, of all or by process.
    """
    started = []

    def start(args: list, count: int, each=None, devices: int = 2, variables=None, **options) -> Together:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        folder = tmp_path_factory.mktemp("logs")
        logs = [folder / f"{index}.txt" for index in range(count)]
        for index, log in enumerate(logs):
            place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(index)}
            # A machine that runs several of these beside other work may need longer than users want to wait.
            place |= {"IMITATION_JOIN_SECONDS": "300"}
            place |= (variables[index] if isinstance(variables, list) else variables) or {}
            more = each[index] if each else []
            with open(log, "w") as file:
                options |= {"stdout": file, "stderr": subprocess.STDOUT}
                started.append(command.start(*args, *more, devices=devices, variables=place, **options))
        return Together(started[-count:], logs)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory, tiny_tokenizer) -> Path:
    """A --config file of the preset "tiny" from random weights; give it --config.data.path."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(
        "from imitation_jax.training import config as training\n\n\n"
        "def get_config():\n"
        "    config = training.get_config()\n"
        "    config.model.preset = 'tiny'\n"
        f"    config.model.tokenizer = {str(tiny_tokenizer)!r}\n"
        "    config.data.seq_len = 64\n"
        "    config.batch_size = 4\n"
        "    config.evaluate.every = 0\n"
        "    config.optimizer.learning_rate = 1e-2\n"
        "    return config\n"
    )
    return path
