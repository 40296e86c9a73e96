import json

import pytest
from etils import epath
from study_grid import grid

from imitation_jax.reporting import caveats, report_tables, trends
from imitation_jax.reporting.model_results import ROWS, read_models
from imitation_jax.reporting.study_file import pooled, read_study, short

NQ = next(row for row in ROWS if (row.task, row.metric) == ("nq", "exact_match"))
TASKS = ("style", "mmlu", "nq")
BUDGETS = (2_000_000, 20_000_000, 150_000_000)  # all beyond their warm-up


def read(root):
    root = epath.Path(root)
    return read_study(root), {model.name: model for model in read_models(root)}


def claims(root):
    study = read(root)
    listed = trends.claims(*study, trends.with_data(*study), trends.with_size(*study))
    return {claim.title.split(":")[0]: claim for claim in listed}


def test_the_papers_claims_on_numbers_like_the_papers(tmp_path):
    grid(tmp_path, local=("quiz",), tasks=TASKS, questions=1500, budgets=BUDGETS)
    by_title = claims(tmp_path)
    assert {title: claim.stands for title, claim in by_title.items()} == {
        "More imitation data brings the style nearer to the teacher's": "supported",
        "More imitation data does not add knowledge": "supported",
        "A better base model helps more than more imitation data": "supported",
        "Local imitation works": "supported",
    }


def test_knowledge_that_rises_with_broad_data_contradicts(tmp_path):
    grid(tmp_path, local=("quiz",), tasks=TASKS, questions=600, budgets=BUDGETS)
    text = (tmp_path / "study.json").read_text().replace('"kind": "local"', '"kind": "broad"')
    (tmp_path / "study.json").write_text(text)
    by_title = claims(tmp_path)
    assert by_title["More imitation data does not add knowledge"].stands == "contradicted"
    assert "Local imitation works" not in by_title


def test_few_questions_do_not_prove_that_knowledge_stood_still(tmp_path):
    grid(tmp_path, tasks=TASKS, questions=60, budgets=BUDGETS)
    claim = claims(tmp_path)["More imitation data does not add knowledge"]
    assert claim.stands == "agrees" and "is not excluded" in claim.sentence


def test_numbers_that_exclude_nothing_leave_it_open(tmp_path):
    grid(tmp_path, tasks=TASKS, questions=6, budgets=BUDGETS)
    claim = claims(tmp_path)["More imitation data does not add knowledge"]
    assert claim.stands == "open" and "too coarse" in claim.sentence


def test_lines_that_begin_in_the_warm_up_say_nothing_of_data_amounts(tmp_path):
    grid(tmp_path, tasks=TASKS)
    study, models = read(tmp_path)
    assert {cell.tokens for cell in study.cells if cell.warm_up} == {300_000}
    assert not trends.with_data(study, models) and trends.with_size(study, models)


def test_one_data_amount_or_one_base_leaves_claims_open(tmp_path):
    grid(tmp_path, bases=(("small", "Small", 1e9),), budgets=(300_000,), tasks=TASKS, questions=30)
    assert {claim.stands for claim in claims(tmp_path).values()} == {"open"}


def test_a_judges_rates_are_compared_though_the_answers_differ(tmp_path):
    grid(tmp_path, tasks=("judge",), budgets=BUDGETS)
    study, models = read(tmp_path)
    by_data, by_size = trends.with_data(study, models), trends.with_size(study, models)
    assert [trend.change.direction for trend in by_data] == [0, 0]
    assert [(trend.where, trend.change.direction) for trend in by_size] == [
        ("base models", 1), ("students of chat, 150M", 1)
    ]  # fmt: skip
    result = models["large"].results["judge"]
    result["settings"]["opponent"] = "another"
    assert [trend.where for trend in trends.with_size(study, models)] == ["students of chat, 150M"]


def test_seeds_are_one_point_with_their_own_error(tmp_path):
    grid(tmp_path, bases=(("small", "Small", 1e9),), budgets=(300_000,), seeds=(0, 1, 2), tasks=("nq",))
    study, models = read(tmp_path)
    cells = study.lines[0].points[0]
    assert [cell.seed for cell in cells] == [0, 1, 2]
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        models[cells[seed].name].results["nq"]["metrics"]["exact_match"] = {"value": value, "stderr": 0.03, "n": 100}
    estimate = pooled(cells, models, NQ)
    assert estimate["value"] == pytest.approx(0.2) and estimate["seeds"] == 3
    # The questions' share, 0.03 squared, does not shrink with the seeds; theirs is 0.01 / 3, widened by t of three.
    assert estimate["stderr"] == pytest.approx((0.0009 + (4.302653 / 1.96) ** 2 * 0.01 / 3) ** 0.5)
    for cell, value in zip(cells, (0.0, 0.0, 0.3), strict=True):  # of a share, nothing beyond what a share can be
        models[cell.name].results["nq"]["metrics"]["exact_match"] |= {"value": value, "hits": 100 * value}
    high = 0.1 + (1.96**2 * 0.0009 + 4.302653**2 * 0.01) ** 0.5
    assert pooled(cells, models, NQ)["interval"] == [0, pytest.approx(high)]


def test_table_1_takes_the_largest_budget(tmp_path):
    grid(tmp_path, local=("quiz",), budgets=(300_000, 20_000_000), tasks=("nq",))
    study, models = read(tmp_path)
    (table,) = report_tables.table_1(study, models)
    assert table.columns == ("base", "chat", "quiz")
    label, (base, chat, _) = table.rows[0]
    assert label == "Small 1B" and base.text == NQ.show(models["small"].estimate(NQ)["value"])
    assert chat.text == NQ.show(models["small-chat-20000000-paper-0"].estimate(NQ)["value"])
    assert chat.note.startswith("20M tokens")


def test_what_is_not_supported_is_said(tmp_path):
    grid(tmp_path, tasks=("mmlu", "toxicity"), budgets=(300_000, 2_000_000))
    content = json.loads((tmp_path / "study.json").read_text())
    content["bases"][0]["note"] = "It has been tuned before."
    content["data"].append({"name": "quiz", "label": "Quiz", "kind": "local", "task": "nq,nq_zero_shot"})
    (tmp_path / "study.json").write_text(json.dumps(content))
    study, models = read(tmp_path)
    said = " ".join(caveats.caveats(study, list(models.values())))
    assert "2 of 4 cells ended within the learning rate's warm-up (small-chat-300000-paper-0, large-chat" in said
    assert "It has been tuned before." in said and "question pairs teach a student that short form too" in said
    assert "No point of the grid has more than one seed" in said
    assert "No person and no LLM judge compared answers" in said
    assert "MMLU 200 of 14,042" in said
    assert "scored by hashed n-grams, not by Perspective" in said
    assert "The largest run has 1.96M tokens" in said


@pytest.mark.parametrize(
    ("number", "text"), [(0, "all"), (300_000, "0.3M"), (150e6, "150M"), (7e9, "7B"), (20_000, "20k"), (512, "512")]
)
def test_numbers_of_tokens_are_short(number, text):
    assert short(number) == text
