import json
import random

import pytest

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.result_tables import paired_table, table
from imitation_jax.evaluation.results import samples_path, write_lines
from imitation_jax.evaluation.tasks import report_rows
from imitation_jax.reporting.model_results import Model, not_comparable


@pytest.fixture
def result(tmp_path):
    """`result("mmlu", "base", [{"correct": True}, ...], shots=5)` writes the samples and returns the result."""

    def make(task, model, samples, **settings):
        rows = [{"id": str(index), **sample} for index, sample in enumerate(samples)]
        write_lines(samples_path(str(tmp_path), model, task, task), rows)
        hits = [sample["correct"] for sample in samples]
        metrics = {"accuracy": statistics.proportion(hits), "words": statistics.mean([12.5] * 2)}
        settings = {"task": task, "data_digest": "d", "model": model, **settings}
        numbers = {"n": len(rows), "seconds": 2.0, "tokens": 500}
        return {"task": task, "model": model, "metrics": metrics, "settings": settings, **numbers}

    return make


def test_a_line_a_metric(result):
    lines = table([result("mmlu", "base", [{"correct": k < 3} for k in range(10)])]).splitlines()
    assert lines[0].split() == ["task", "model", "metric", "value", "95%", "interval", "n", "seconds", "tokens/s"]
    # Wilson's interval of 3 of 10
    assert lines[1].split() == "mmlu base accuracy 0.3000 0.1078 to 0.6032 10 2.0 250".split()
    assert lines[2].split() == "mmlu base words 12.5000 12.5000 to 12.5000 2 2.0 250".split()
    nothing = result("style", "base", []) | {"seconds": 0.0, "tokens": 0}
    assert table([nothing]).splitlines()[1].split() == "style base accuracy - - 0 0.0 -".split()


def test_models_are_compared_item_by_item_with_the_first(result, tmp_path):
    drawn = random.Random(0)
    base = [{"correct": drawn.random() < 0.4, "f1": drawn.random()} for _ in range(400)]
    better = [{"correct": row["correct"] or drawn.random() < 0.1, "f1": row["f1"] + 0.01} for row in base]
    results = [result("nq", "base", base), result("nq", "same", base), result("nq", "better", better)]
    results.append(result("mmlu", "base", base))
    text = paired_table(results, str(tmp_path))
    header, *lines = [line.split() for line in text.splitlines()]
    assert " ".join(header) == "task model minus score difference 95% interval n won lost McNemar p"
    assert [line[:4] for line in lines] == [
        ["nq", model, "base", score] for model in ("same", "better") for score in ("correct", "f1")
    ]
    assert lines[0][4:] == "+0.0000 0.0000 to 0.0000 400 0 0 1".split()
    assert lines[1][4:] == "+0.0000 0.0000 to 0.0000 400 - - -".split()
    won = sum(b["correct"] - a["correct"] for a, b in zip(base, better, strict=True))
    assert lines[2][4] == f"{won / 400:+.4f}"
    assert lines[2][8:] == ["400", str(won), "0", f"{2 * 0.5**won:.2g}"]
    low, high = float(lines[2][5]), float(lines[2][7])
    assert 0 < low < won / 400 < high
    assert lines[3][4:8] == "+0.0100 0.0100 to 0.0100".split()


def test_what_was_measured_otherwise_is_not_compared(result, tmp_path):
    some = [{"correct": True}, {"correct": False}]
    results = [result("nq", "a", some, shots=3), result("nq", "b", some, shots=5), result("nq", "c", some[:1], shots=3)]
    text = paired_table(results, str(tmp_path))
    assert text.splitlines() == [
        "nq: b and a are not compared, they differ in shots",
        "nq: c and a are not compared, their samples are not of the same items",
    ]


@pytest.mark.parametrize("key, compared", [("memory_gib", True), ("template", True), ("compute_dtype", False)])
def test_evaluate_and_the_report_agree_on_what_can_be_compared(result, tmp_path, key, compared):
    some = [{"correct": True}, {"correct": False}]
    results = [result("nq", name, some, **{key: value}) for name, value in (("a", "1"), ("b", "2"))]
    assert ("not compared" in paired_table(results, str(tmp_path))) is not compared
    models = [Model(each["model"], "", {"nq": each}, tmp_path) for each in results]
    row = next(row for row in report_rows() if row.task == "nq")
    assert not_comparable(row, *models) == ([] if compared else [key])


def test_items_without_a_score_are_left_out(result, tmp_path):
    base = [{"correct": True}, {"correct": None}, {"correct": False}]
    rows = [{**row, "correct": bool(row["correct"])} for row in base]
    results = [result("nq", "a", rows), result("nq", "b", rows)]
    path = samples_path(str(tmp_path), "b", "nq", "nq")
    path.write_text("".join(json.dumps({"id": str(k), **row}) + "\n" for k, row in enumerate(base)))
    text = paired_table(results, str(tmp_path))
    assert text.splitlines()[1].split()[8] == "2" and len(text.splitlines()) == 2
    assert paired_table(results[:1], str(tmp_path)) == ""
