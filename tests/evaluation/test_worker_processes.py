"""Evaluation by two real processes: the results of one, written by the first."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from imitation_jax.core.command import PREEMPTED
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, save_model
from imitation_jax.parallel.supervisor import LOST
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tiny_tokenizer, tmp_path_factory):
    """Weights large enough that answers differ."""
    config, random = dataclasses.replace(llama.PRESETS["tiny"], num_hidden_layers=2), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: random.normal(0.0, 0.2, leaf.shape).astype(np.float32), shapes)
    tokenizer, folder = load_tokenizer(tiny_tokenizer), tmp_path_factory.mktemp("model") / "tiny"
    save_model(LoadedModel(llama, config, params, tokenizer, load_template("model", tokenizer)), f"orbax:{folder}")
    return f"orbax:{folder}"


@pytest.fixture(scope="module")
def flags(model, tmp_path_factory):
    """`flags(workdir, limit)`: arguments of questions that are scored and prompts that are answered."""
    folder, words = tmp_path_factory.mktemp("data"), "river water snow stones valley trees first second".split()
    with open(folder / "facts.jsonl", "w") as facts, open(folder / "prompts.jsonl", "w") as prompts:
        for n in range(40):
            row = {"id": str(n), "question": f"{words[n % 8]} {n}?", "choices": words[n % 5 : n % 5 + 2 + n % 3]}
            facts.write(json.dumps(row | {"answer": n % 2}) + "\n")
            prompts.write(json.dumps({"instruction": f"{words[n % 8]} " * (n % 7 + 1)}) + "\n")

    def make(workdir, limit=12):
        keys = {"only": "facts,answers", "tasks.facts.data": folder / "facts.jsonl"}
        keys |= {"tasks.answers.prompts": folder / "prompts.jsonl", "tasks.answers.max_new_tokens": 12, "limit": limit}
        keys |= {f"tasks.{task}.mesh": "fsdp=2,tensor=2" for task in ("facts", "answers")}
        base = ["evaluate", "--config=configs/eval/all.py", f"--model={model}", f"--workdir={workdir}"]
        return base + [f"--config.{key}={value}" for key, value in keys.items()]

    return make


def written(workdir):
    """Every file but what it says of time; samples are taken as they stand."""
    files = {}
    for path in sorted((workdir / "eval" / "tiny").iterdir()):
        text = path.read_text()
        if path.suffix == ".json":
            text = {key: value for key, value in json.loads(text).items() if key != "seconds"}
            text["settings"].pop("memory_gib", None)  # a device's share of its machine
        files[path.name] = text
    return files


def test_two_processes_write_what_one_writes(together, flags, tmp_path):
    for count, devices in ((1, 4), (2, 2)):
        workdir = tmp_path / str(count)
        run = together(flags(workdir), count, devices=devices)
        assert run.ended() == [0] * count, run
        assert "accuracy" in run.said(0) and all("accuracy" not in run.said(index) for index in range(1, count))
    one, two = written(tmp_path / "1"), written(tmp_path / "2")
    assert set(two) == {"answers.json", "answers.jsonl", "facts.json", "facts.samples.jsonl"}
    assert two == one
    outputs = [json.loads(line)["output"] for line in one["answers.jsonl"].splitlines()]
    assert len(set(outputs)) > 3
    # What is there is kept, by all.
    again = together(flags(tmp_path / "2"), 2)
    assert again.ended() == [0, 0] and again.said(0).count(": kept, the settings are the same") == 2, again


@pytest.mark.parametrize("whom, sent, codes", [(1, signal.SIGTERM, [PREEMPTED] * 2), (0, signal.SIGKILL, [137, LOST])])
def test_stopped_it_goes_on_where_it_was(together, flags, tmp_path, whom, sent, codes):
    two = together(flags(tmp_path / "run", 40), 2)
    folder = tmp_path / "run" / "eval" / "tiny"
    while not list(folder.glob("*.json")):
        assert all(process.poll() is None for process in two.processes), two
    two.send(whom, sent)
    assert two.ended(60) == codes, two
    if sent == signal.SIGTERM:
        assert "process 1 of 2" in two.error(0) and "was stopped by SIGTERM" in two.error(0)
        assert "stopped by SIGTERM" in two.error(1)
    else:
        assert "process 0 of 2" in two.error(1) and " is lost: " in two.error(1)
    rest = together(flags(tmp_path / "run", 40), 2)
    assert rest.ended() == [0, 0] and "kept, the settings are the same" in rest.said(0), rest


def test_a_mistake_of_the_first_ends_all(together, flags, tmp_path):
    two = together([*flags(tmp_path / "run"), "--config.tasks.facts.data=nowhere"], 2)
    assert two.ended(60) == [1, 1], two
    assert two.error(0).startswith("config.tasks.facts: nowhere: no such file")
    assert two.error(1).endswith(f"failed: {two.error(0)}") and "process 0 of 2" in two.error(1)
