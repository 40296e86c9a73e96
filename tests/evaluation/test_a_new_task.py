"""A task that is added by two files of its own: evaluated, compared, in the tables and in the report."""

import json

import pytest

from imitation_jax.evaluation import runner, tasks
from imitation_jax.evaluation.result_tables import paired_table, table
from imitation_jax.reporting.model_results import Model, not_comparable

MODULE = '''
"""Spelling backwards: does the model write a word's letters from its last to its first?"""

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.evaluation import statistics
from imitation_jax.data.benchmark_rows import read_lines
from imitation_jax.evaluation.config import OF_MODEL
from imitation_jax.evaluation.prompts import encode_prompt
from imitation_jax.evaluation.task import Needs, Row, correct
from imitation_jax.inference.requests import GenerateRequest

NAMES, NEEDS, PAIRED = ("backwards",), Needs.MODEL, ("correct",)
KEYS = OF_MODEL | Keys(words=Key("", "file of words", DATA), max_new_tokens=Key(8, "of an answer"))
DEFINITIONS = {"prompt": "{word} backwards is "}
ROWS = (Row("knowledge", "backwards", "exact", "Backwards, %", sample_value=correct),)
FULL_SIZE = {"backwards": 100}


def read(config):
    return [{"id": word, "gold": word[::-1]} for _, word in read_lines(config.words)]


def text(item):
    return item["id"]


def ask(engine, items, config, on_sample):
    prompts = [item["id"] + " backwards is " for item in items]
    requests = [GenerateRequest(encode_prompt(engine, prompt, False), config.max_new_tokens) for prompt in prompts]

    def collect(index, generation):
        item = items[index]
        hit = generation.text == item["gold"]
        on_sample({**item, "prompt": prompts[index], "prediction": generation.text, "correct": hit})

    engine.generate(requests, on_result=collect)


def summarise(samples, items, config):
    return {"metrics": {"exact": statistics.proportion([sample["correct"] for sample in samples])}}
'''
CONFIG = """
from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("backwards")
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The config of the new task, whose module lies in a folder of its own."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "backwards.py").write_text(MODULE)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    tasks.all_tasks.cache_clear()
    names: dict = {}
    exec(CONFIG, names)
    (tmp_path / "words.txt").write_text("stone\nriver\n")
    yield names["get_config"]()
    tasks.all_tasks.cache_clear()


def test_a_task_is_a_module_and_a_config(config, tmp_path, scripted, with_engine):
    config.words = str(tmp_path / "words.txt")
    results = []
    for name, writes in (("a", {"stone": "enots", "river": "revir"}), ("b", {"stone": "enots"})):
        (tmp_path / f"{name}.gguf").write_bytes(name.encode())
        with_engine(scripted(writes=writes))
        results += runner.evaluate(config, [f"gguf:{tmp_path}/{name}.gguf"], str(tmp_path), tmp_path)
    assert [result["metrics"]["exact"]["value"] for result in results] == [1.0, 0.5]
    assert table(results).splitlines()[1].split()[:4] == ["backwards", "a", "exact", "1.0000"]
    [_, line] = paired_table(results, str(tmp_path)).splitlines()
    assert line.split()[:5] == ["backwards", "b", "a", "correct", "-0.5000"]
    assert [(row.task, row.label) for row in tasks.report_rows() if row.kind == "knowledge"][-1] == (
        "backwards",
        "Backwards, %",
    )
    assert tasks.full_sizes()["backwards"] == 100
    [row] = tasks.all_tasks()["backwards"].ROWS
    one, other = (Model(each["model"], "", {"backwards": each}, tmp_path / "eval" / each["model"]) for each in results)
    assert not_comparable(row, one, other) == [] and one.scores(row) == {"stone": 1.0, "river": 1.0}
    results[1]["settings"]["max_new_tokens"] = 4
    assert not_comparable(row, one, other) == ["max_new_tokens"]
    with_engine(scripted())
    config.batch_size = 2
    [kept] = runner.evaluate(config, [f"gguf:{tmp_path}/a.gguf"], str(tmp_path), tmp_path)
    assert kept["metrics"] == results[0]["metrics"]


def test_every_task_has_what_the_protocol_names():
    needed = [name for name in (*tasks.Task.__annotations__, "read", "text", "ask", "summarise")]
    for task in set(tasks.all_tasks().values()):
        assert [name for name in needed if not hasattr(task, name)] == [], task
        assert json.dumps(task.DEFINITIONS) and {row.task for row in task.ROWS} <= {*task.NAMES, *task.FULL_SIZE}
