import json
import os
import signal
import subprocess
import sys

import pytest
from etils import epath

from imitation_jax.evaluation.results import Samples, digest, model_name, read_result, safe_name, write_result

WRITER = """
import os, signal, sys
from etils import epath
from imitation_jax.evaluation.results import Samples
samples = Samples(epath.Path(sys.argv[1]), "settings")
for k in range(3):
    samples.append({"id": str(k), "prediction": "\\u00e9\\ud800\\u2028"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_before_a_kill_9_is_read_back(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    done = subprocess.run([sys.executable, "-c", WRITER, str(final)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert not final.exists()
    with open(f"{final}.partial", "ab") as file:
        file.write(b'{"sample": {"id": "3", "predic')  # what a kill in the middle of a write leaves
    samples = Samples(final, "settings")
    assert list(samples.rows) == ["0", "1", "2"]
    samples.append({"id": "3", "prediction": "whole"})
    rows = samples.finish(["3", "1", "0", "2"])
    assert [row["id"] for row in rows] == ["3", "1", "0", "2"]
    assert [json.loads(line) for line in final.read_bytes().split(b"\n")[:-1]] == rows
    assert rows[1]["prediction"] == "\u00e9\ud800\u2028"
    samples.discard()
    assert os.listdir(tmp_path) == ["task.samples.jsonl"]


def test_other_settings_begin_anew(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    first = Samples(final, "settings")
    first.append({"id": "a"})
    assert Samples(final, "other").rows == {}
    assert Samples(final, "settings").rows == {}  # the second start has emptied the file


def test_seconds_add_up_over_starts(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    first = Samples(final, "settings")
    first._before = 100.0
    first.append({"id": "a"})
    assert Samples(final, "settings").seconds >= 100.0


def test_names(tmp_path):
    assert safe_name("../a b/é") == "a_b_é"
    assert safe_name("..") == "model"
    assert model_name("hf:/x/llama-7b/") == "llama-7b"
    assert model_name("gguf:/x/SmolLM2.Q4_1.gguf") == "SmolLM2.Q4_1"
    assert model_name("orbax:gs://bucket/run@600") == "run@600"


def test_digest_sees_every_change():
    settings = {"a": 1, "b": ["x"]}
    assert digest(settings) == digest({"b": ["x"], "a": 1})
    assert len({digest(value) for value in (settings, {**settings, "a": 2}, {**settings, "b": ["y"]}, {"a": 1})}) == 4


def test_result_files(tmp_path):
    path = epath.Path(tmp_path / "eval" / "m" / "task.json")
    assert read_result(path) is None
    result = {"task": "task", "metrics": {"accuracy": {"value": 0.5, "stderr": None, "n": 2}}}
    write_result(path, result)
    assert read_result(path) == result
    path.write_text('{"task": ')
    with pytest.raises(ValueError, match="task.json: not a result file"):
        read_result(path)
