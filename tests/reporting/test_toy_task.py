"""A task is one file: with it alone its results have their lines, figures, caveats and claims in the report."""

import json
import subprocess
import sys

from study_grid import grid

TASK = '''
"""Riddles, of which 5,000 were published."""

from imitation_jax.evaluation.choices import KEYS as OF_CHOICES
from imitation_jax.evaluation.task import Needs, Row, correct

NAMES, NEEDS, KEYS, DEFINITIONS, PAIRED = ("riddles",), Needs.MODEL, OF_CHOICES, {}, ()
ROWS = (Row("knowledge", "riddles", "accuracy", "Riddles, %", sample_value=correct),)
FULL_SIZE = {"riddles": 5000}
'''
PROGRAM = """
import sys
from imitation_jax.evaluation import tasks
tasks.__path__.append(sys.argv[1])
from imitation_jax.reporting.page import write_report
print(write_report(sys.argv[2])[1])
"""


def test_a_task_that_is_one_file_is_in_the_report(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "riddles.py").write_text(TASK)
    workdir = tmp_path / "study"
    grid(workdir, tasks=("style", "mmlu"), budgets=(20_000_000, 150_000_000))
    for path in workdir.glob("eval/*/mmlu.json"):
        result = json.loads(path.read_text()) | {"task": "riddles"}
        result["settings"] |= {"template": path.parent.name, "memory_gib": len(path.parent.name)}  # each model's own
        path.with_name("riddles.json").write_text(json.dumps(result))
        samples = path.with_name("riddles.samples.jsonl")
        samples.write_text(path.with_name("mmlu.samples.jsonl").read_text())
        path.unlink()
    run = [sys.executable, "-c", PROGRAM, str(tmp_path / "tasks"), str(workdir)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Riddles" in done.stdout  # a claim about knowledge rests on it
    page = (workdir / "report" / "index.html").read_text()
    for said in ("Riddles by data amount, %", "Riddles by base model, %", "Riddles 200 of 5,000 questions"):
        assert said in page, said
    assert "measured with different" not in page
    assert "knowledge,riddles,accuracy,small,base," in (workdir / "report" / "table.csv").read_text()
