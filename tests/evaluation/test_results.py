import json
import os
import signal
import subprocess
import sys

import pytest
from etils import epath

from imitation_jax.core.fingerprint import DATA, MODEL, PLACE, Key, Keys
from imitation_jax.evaluation.results import (
    Samples,
    differing_settings,
    is_current,
    model_name,
    read_result,
    safe_name,
    write_result,
)

WRITER = """
import os, pathlib, signal, sys
from etils import epath
from imitation_jax.evaluation.results import Samples
samples = Samples(epath.Path(sys.argv[1]), "settings", pathlib.Path("unused"))
for k in range(3):
    samples.append({"id": str(k), "prediction": "\\u00e9\\ud800\\u2028"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_before_a_kill_9_is_read_back(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    done = subprocess.run([sys.executable, "-c", WRITER, str(final)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert not final.exists()
    with open(f"{final}.settings.partial", "ab") as file:
        file.write(b'{"sample": {"id": "3", "predic')  # what a kill in the middle of a write leaves
    samples = Samples(final, "settings", tmp_path)
    assert list(samples.rows) == ["0", "1", "2"]
    samples.append({"id": "3", "prediction": "whole"})
    rows = samples.finish(["3", "1", "0", "2"])
    assert [row["id"] for row in rows] == ["3", "1", "0", "2"]
    assert [json.loads(line) for line in final.read_bytes().split(b"\n")[:-1]] == rows
    assert rows[1]["prediction"] == "\u00e9\ud800\u2028"
    samples.discard()
    assert os.listdir(tmp_path) == ["task.samples.jsonl"]


def test_other_settings_leave_the_work_alone(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    with Samples(final, "settings", tmp_path) as first:
        first.append({"id": "a"})
    with Samples(final, "mistyped", tmp_path) as other:
        assert other.rows == {}
        other.finish([])
        other.discard()
    assert Samples(final, "settings", tmp_path).rows == {"a": {"id": "a"}}


def test_a_second_evaluate_of_the_same_task_is_refused(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    with Samples(final, "settings", tmp_path) as first:
        first.append({"id": "a"})
        with pytest.raises(BlockingIOError, match="another process writes to it; wait") as error:
            Samples(final, "settings", tmp_path)
        assert "\n" not in str(error.value) and str(first.partial) in str(error.value)
        first.append({"id": "b"})
    assert list(Samples(final, "settings", tmp_path).rows) == ["a", "b"]


def test_work_for_a_bucket_waits_in_the_cache_folder(tmp_path):
    partials = set()
    for final, settings in (("gs://b/task.jsonl", "1"), ("gs://b/task.jsonl", "2"), ("gs://c/task.jsonl", "1")):
        with Samples(epath.Path(final), settings, tmp_path / "cache") as samples:
            samples.append({"id": "a"})
            partials.add(samples.partial)
    assert len(partials) == 3 and {path.parent for path in partials} == {tmp_path / "cache"}


def test_seconds_add_up_over_starts(tmp_path):
    final = epath.Path(tmp_path / "task.samples.jsonl")
    with Samples(final, "settings", tmp_path) as first:
        first._before = 100.0
        first.append({"id": "a"})
    assert Samples(final, "settings", tmp_path).seconds >= 100.0


def test_names(tmp_path):
    assert safe_name("../a b/é") == "a_b_é"
    assert safe_name("..") == "model"
    assert model_name("hf:/x/llama-7b/") == "llama-7b"
    assert model_name("gguf:/x/SmolLM2.Q4_1.gguf") == "SmolLM2.Q4_1"
    assert model_name("orbax:gs://bucket/run@600") == "run@600"


KEYS = Keys(
    data=Key("", "file", DATA), model=Key("", "weights", MODEL), shots=Key(0, "examples"), mesh=Key("", "axes", PLACE)
)


def test_a_kept_result_is_current_where_nothing_differs_that_changes_its_numbers():
    """One rule for evaluate, judge and a study, which knows a part of the settings."""
    settings = {"data": "a.jsonl", "model": "hf:a", "shots": 5, "mesh": "fsdp=8", "stops": ("x", "y")}
    kept = {"settings": json.loads(json.dumps(settings)), "metrics": {}}
    assert is_current(kept, KEYS, settings) and not is_current(None, KEYS, settings)
    for same in ({"mesh": "fsdp=1"}, {"data": "moved/a.jsonl"}):
        assert is_current(kept, KEYS, settings | same)
    for other in ({"shots": 3}, {"model": "hf:b"}, {"stops": ("x",)}, {"undeclared": 1}):
        assert not is_current(kept, KEYS, settings | other)
    # what was recorded before a key was declared has its default
    assert is_current(kept, KEYS | Keys(chat=Key(False, "template")), settings | {"chat": False})
    part = {"model": "hf:a", "data": "a.jsonl", "mesh": "data=8"}
    assert is_current(kept, KEYS, part, whole=False) and not is_current(kept, KEYS, part)
    assert not is_current(kept, KEYS, part | {"data": "moved/a.jsonl"}, whole=False)
    assert not is_current(kept, KEYS, part | {"shots": 3}, whole=False)


def test_two_results_are_compared_where_only_model_and_place_differ():
    def result(**settings):
        return {"settings": {"model": "hf:a", "shots": 5, "mesh": "fsdp=8", "data": "a"} | settings}

    assert differing_settings(result(), result(model="hf:b", mesh="data=8", data="b"), KEYS) == []
    assert differing_settings(result(), result(shots=3, definitions={"stops": ["x"]}), KEYS) == [
        "definitions.stops",
        "shots",
    ]


def test_result_files(tmp_path):
    path = epath.Path(tmp_path / "eval" / "m" / "task.json")
    assert read_result(path) is None
    result = {"task": "task", "metrics": {"accuracy": {"value": 0.5, "stderr": None, "n": 2}}}
    write_result(path, result)
    assert read_result(path) == result
    path.write_text('{"task": ')
    with pytest.raises(ValueError, match="task.json: not a result file"):
        read_result(path)
