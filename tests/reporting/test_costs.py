import json

import pytest
from etils import epath
from study_grid import grid

from imitation_jax.reporting import costs, model_results
from imitation_jax.reporting.page import write_report
from imitation_jax.reporting.study_file import read_study


def test_hours_are_the_steps_and_the_tasks_own(tmp_path):
    grid(tmp_path, bases=(("small", "Small", 1e9),), budgets=(300_000,), tasks=("nq", "judge"), questions=20)
    root = epath.Path(tmp_path)
    metrics = tmp_path / "runs/small-chat-300000-paper-0/metrics.jsonl"
    # a step that a killed run wrote twice counts once, a line that was cut counts nothing, and the wait for the next
    # batch is within the step's seconds
    again = json.dumps({"step": 10, "seconds": 2.0, "data_seconds": 1.5, "loss": 1.0})
    metrics.write_text(f'{metrics.read_text()}{again}\n{{"step": 1')
    by_name = {cost.name: cost for cost in costs.costs(root, read_study(root), model_results.read_models(root))}
    cell = by_name["small-chat-300000-paper-0"]
    assert cell.training_hours == pytest.approx(20 / 3600)
    assert cell.evaluation_hours == pytest.approx(12 / 3600)  # the judge's time is another machine's
    assert cell.operations == pytest.approx(1e9 * (6 * 294_000 + 2 * 50_000))
    assert by_name["small"].training_hours == 0 and by_name["small"].operations == pytest.approx(1e9 * 2 * 50_000)


def test_a_damaged_line_is_named(tmp_path):
    path = epath.Path(tmp_path / "metrics.jsonl")
    path.write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl:2: no JSON object"):
        model_results.read_lines(path)


def test_the_assumption_is_stated(tmp_path):
    grid(tmp_path, bases=(("small", "Small", 1e9),), budgets=(300_000,), tasks=("nq",), questions=20)
    html = open(write_report(str(tmp_path), watts=250, price=36)[0], encoding="utf-8").read()
    hours = (20 + 12 + 12 + 12) / 3600  # a run, the base, the cell, and the teacher's style
    assert f"{hours * 250 / 1000:.2f} kWh and ${hours * 36:.2f}" in html
    assert "assumed to draw 250 W" in html and "cost $36 an hour" in html
