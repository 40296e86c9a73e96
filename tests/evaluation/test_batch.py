"""A batch of real models on real engines: what it shares, and what is left of it after kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from imitation_jax.evaluation import engines, runner
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, save_model
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
# Runs `evaluate` and writes a line to ASKED for every result that an engine hands out; the result of number DIES_AFTER
# kills the process before anybody has seen it.
SPY = """
import os, runpy, signal
from imitation_jax.inference.engine import Engine
asked, dies_after, count = open(os.environ["ASKED"], "w"), int(os.environ["DIES_AFTER"]), 0
def spied(method):
    def call(self, requests, on_result):
        def take(index, result):
            global count
            count += 1
            print(count, file=asked, flush=True)
            if count == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            on_result(index, result)
        return method(self, requests, on_result=take)
    return call
Engine.score, Engine.generate = spied(Engine.score), spied(Engine.generate)
runpy.run_module("imitation_jax.evaluate", run_name="__main__", alter_sys=True)
"""
CHOICES = {"facts": 3, "mmlu": 4, "nq_zero_shot": 1, "answers": 1}
ITEMS = {"facts": 6, "mmlu": 7, "nq_zero_shot": 5, "answers": 4}


@pytest.fixture
def data(tmp_path, tiny_tokenizer, write):
    """Three models of one shape, two as Hugging Face folders and one as an Orbax run, and questions for four tasks."""
    config, tokenizer = llama.PRESETS["tiny"], load_tokenizer(tiny_tokenizer)
    for seed, target in enumerate((f"hf:{tmp_path}/models/a", f"hf:{tmp_path}/models/b", f"orbax:{tmp_path}/run")):
        params = decoder.init(config, jax.random.key(seed))
        save_model(LoadedModel(llama, config, params, tokenizer, load_template("model", tokenizer)), target)

    choices = ["the river", "snow", "a stone in the water"]
    write(tmp_path / "facts.jsonl", [{"question": f"what {k}", "choices": choices, "answer": k % 3} for k in range(6)])
    write(tmp_path / "nq.jsonl", [{"question": f"who {k}", "answer": ["farmers"]} for k in range(5)])
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {k}\n" for k in range(4)), encoding="utf-8")
    header = "question,choice0,choice1,choice2,choice3,answer\n"
    for part, count in (("dev", 5), ("test", 7)):
        (tmp_path / "mmlu" / part).mkdir(parents=True)
        rows = "".join(f"why {k},a,b,c,d,{k % 4}\n" for k in range(count))
        (tmp_path / f"mmlu/{part}/rivers_{part}.csv").write_text(header + rows, encoding="utf-8")
    return tmp_path


def overrides(data):
    return {
        "only": ",".join(ITEMS),
        "tasks.facts.data": f"{data}/facts.jsonl",
        "tasks.nq_zero_shot.data": f"{data}/nq.jsonl",
        "tasks.nq_zero_shot.max_new_tokens": 8,
        "tasks.answers.prompts": f"{data}/prompts.txt",
        "tasks.answers.max_new_tokens": 8,
        "tasks.mmlu.data_dir": f"{data}/mmlu",
        "tasks.mmlu.shots": 1,
        "batch_size": 4,
    }


def test_models_of_one_shape_share_programs_and_are_in_memory_one_at_a_time(data, config_of, monkeypatch, caplog):
    config = config_of("all")
    config.update_from_flattened_dict(overrides(data) | {"only": "facts"})
    before, load_model = [], engines.load_model

    def alive():
        return sum(array.nbytes for array in jax.live_arrays())

    def compiled():
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    def spied(*args):
        before.append((alive() - others, compiled()))
        return load_model(*args)

    monkeypatch.setattr(engines, "load_model", spied)
    others = alive()
    with jax.log_compiles():
        runner.evaluate(config, [f"hf:{data}/models/*", f"orbax:{data}/run"], str(data / "out"), data)
    (first, nothing), (second, programs), (third, same) = before
    assert nothing == 0 < programs == same == compiled()
    assert max(first, second, third) < 1000  # bytes; a model has a million


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_batch(data):
    """Killed twice, in the first and in the second model, and started again: the same tables, nothing asked twice."""

    def evaluate(out, dies_after=0):
        flags = [f"--config.{key}={value}" for key, value in overrides(data).items()]
        models = f"--model=hf:{data}/models/*,orbax:{data}/run@*"
        argv = ["--config=configs/eval/all.py", *flags, models, f"--workdir={data / out}"]
        env = os.environ | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "IMITATION_CACHE": str(data / "cache"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "True",
            "ASKED": str(data / "asked"),
            "DIES_AFTER": str(dies_after),
        }
        done = subprocess.run([sys.executable, "-c", SPY, *argv], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == (-signal.SIGKILL if dies_after else 0), done.stderr
        return done.stdout, len((data / "asked").read_text().splitlines())

    def on_disk(out):
        """The samples in finished and unfinished files: {(model, task, id): sample}."""
        found = {}
        for path in (data / out / "eval").glob("*/*.jsonl*"):
            for line in path.read_bytes().splitlines():
                row = json.loads(line)
                sample = row.get("sample", row)
                found[path.parent.name, path.name.split(".")[0], sample["id"]] = sample
        return found

    def without_times(text):
        return re.sub(r" +\d+\.\d +\d+$", "", text, flags=re.MULTILINE)

    expected, whole = evaluate("undisturbed")
    per_model = sum(CHOICES[task] * count for task, count in ITEMS.items())
    assert whole == 3 * per_model
    for dies_after in (per_model // 3, per_model):
        done = on_disk("killed")
        evaluate("killed", dies_after=dies_after)
        kept = on_disk("killed")
        # the last result was lost with the process, and with it the other choices of its question
        assert done.items() <= kept.items() and len(done) < len(kept)
    text, asked = evaluate("killed")
    assert asked == whole - sum(CHOICES[task] for _, task, _ in kept)
    assert without_times(text) == without_times(expected)
    assert len(text.split("\n\n")) == 2
    final = on_disk("killed")
    assert kept.items() <= final.items() and final.keys() == on_disk("undisturbed").keys()
    assert not list((data / "killed").rglob("*.partial"))
    # a third start asks nothing and says the same, seconds included
    assert evaluate("killed") == (text, 0)
