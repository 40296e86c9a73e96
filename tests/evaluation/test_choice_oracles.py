"""The choice tasks on the real model, against log-likelihoods that the reference harness's prompts gave."""

import json

import pytest

from imitation_jax.evaluation.tasks import arc, lambada, mmlu, piqa
from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(smollm2_gguf):
    return Engine(load_model(f"gguf:{smollm2_gguf}"))


def oracle(lent, name):
    return [json.loads(line) for line in open(lent(f"oracle_smollm2/{name}"), encoding="utf-8")]


@pytest.mark.parametrize(
    ("task", "name", "data", "expected"),
    [
        (arc, "arc", "arc_easy/arc_easy.jsonl", "arc_easy.jsonl"),
        (piqa, "piqa", "piqa/piqa_100.jsonl", "piqa_100.jsonl"),
    ],
)
def test_choices(task, name, data, expected, engine, lent, config_of, answer_all):
    rows = oracle(lent, expected)
    samples, found = answer_all(task, engine, config_of(name, data=str(lent(data)), limit=len(rows)))
    for sample, row in zip(samples, rows, strict=True):
        assert sample["gold"] == row["gold"], sample["id"]
        assert sample["logprobs"] == pytest.approx(row["ll"], abs=1e-3, rel=0), sample["id"]
    hits = [max(range(len(row["ll"])), key=row["ll"].__getitem__) == row["gold"] for row in rows]
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(sum(hits) / len(hits))
    assert 0 < found["metrics"]["calibration_error"]["value"] < 1


def test_passages(engine, lent, config_of, answer_all):
    rows = oracle(lent, "lambada_openai_100.jsonl")
    samples, found = answer_all(
        lambada, engine, config_of("lambada", data=str(lent("lambada_openai/lambada_openai_100.jsonl")))
    )
    for sample, row in zip(samples, rows, strict=True):
        assert sample["logprobs"] == pytest.approx([row["ll"]], abs=1e-3, rel=0), sample["id"]
        assert sample["correct"] == row["greedy"], sample["id"]
    assert found["metrics"]["accuracy"]["value"] == sum(row["greedy"] for row in rows) / len(rows)


def test_mmlu_with_the_prompt_of_the_original_code_asks_something_else(engine, lent, config_of, answer_all):
    config = {"data_dir": str(lent("mmlu")), "subjects": "abstract_algebra", "limit": 5, "shots": 0}
    rows = [row for row in oracle(lent, "mmlu_0_5.jsonl") if row["subject"] == "abstract_algebra"]
    for variant, same in ((None, True), ("original", False)):
        samples, _ = answer_all(mmlu, engine, config_of("mmlu", variant, **config))
        for sample, row in zip(samples, rows, strict=True):
            assert (sample["logprobs"] == pytest.approx(row["ll"], abs=1e-3, rel=0)) is same
