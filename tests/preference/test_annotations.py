import json

import pytest
from test_commands import one_line

from imitation_jax.preference import annotations, llm_judge, result_files

PUBLISHED = {
    # win rate in percent as AlpacaEval's leaderboard has it; at equal length by AlpacaEval's own fit without penalty
    "gpt-3.5-turbo-0301": (89.37, 79.3317, 804),
    "alpaca-7b": (26.46, 22.0375, 805),
    "vicuna-13b": (70.43, 57.5654, 805),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_gpt4s_real_verdicts_give_the_published_win_rates(lent, name):
    verdicts = str(lent(f"alpaca_eval/annotations_gpt4/{name}.jsonl"))
    files = [str(lent(f"alpaca_eval/model_outputs/{model}.json")) for model in (name, "text_davinci_003")]
    found = result_files.percentages(llm_judge.from_verdicts(verdicts, *files))
    rate, at_equal_length, n = PUBLISHED[name]
    assert round(found["win_rate"], 2) == rate and found["n"] == n
    assert round(found["win_rate_length_controlled"], 4) == at_equal_length
    assert found["interval"][0] < rate < found["interval"][1]
    assert (found["model"], found["opponent"]) == (name, "text_davinci_003")
    assert sum(found["counts"]["no_vote"].values()) == 805 - n


def test_vicunas_reviews_have_a_vote_each(lent):
    path = lent("vicuna_eval_2023/review/vicuna-13b_20230322-clean-lang/review_gpt35_vicuna-13b.jsonl")
    files = [str(lent(f"vicuna_eval_2023/answer/answer_{name}.jsonl")) for name in ("vicuna-13b", "gpt35")]
    result = llm_judge.from_verdicts(str(path), *files)
    scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    wins, ties = sum(a > b for b, a in scores), sum(a == b for b, a in scores)
    assert result["metrics"]["win_rate"]["value"] == pytest.approx((wins + ties / 2) / 80)
    assert result["counts"] == {"pairs": 80, "votes": 80, "no_vote": {}, "votes_without_lengths": 0}
    assert (result["model"], result["settings"]["opponent"]) == (
        "vicuna-13b:20230322-clean-lang",
        "gpt-3.5-turbo:20230327",
    )


SAMPLE = dict.fromkeys(("id", "prompt", "output_a", "output_b", "preference", "why")) | {"verdicts": {}}


def test_every_kind_of_preference(write, tmp_path):
    rows = [{"instruction": "q", "preference": value} for value in (1, 2.0, 0, 1.5, 1.25, None, float("nan"))]
    samples, a, b = annotations.read(write(tmp_path / "v.jsonl", rows))
    assert [sample["preference"] for sample in samples] == [0, 1, 0.5, 0.5, 0.25, None, None]
    assert (a, b) == ("answer 2", "answer 1") and samples[0]["lengths"] is None


@pytest.mark.parametrize(
    "row, message",
    [
        ({"preference": 3}, "v.jsonl:2: 'preference' must be 1 to 2, 0 for a draw, or null, not 3"),
        ({"preference": "A"}, "v.jsonl:2: 'preference' must be"),
        ({"preference": True}, "v.jsonl:2: 'preference' must be"),
        ({"preference": -1}, "v.jsonl:2: 'preference' must be"),
        ({"winner": 1}, "v.jsonl:2: needs 'preference'"),
        ({"verdicts": {"ab": 1}, "preference": 1}, "v.jsonl:2: not a sample of judge"),
        (SAMPLE | {"verdicts": {"ab": 1}}, "v.jsonl:2: not a sample of judge"),
        (SAMPLE | {"output_a": ["a"]}, "v.jsonl:2: not a sample of judge"),
        ({"preference": 2, "generator_2": "other"}, "holds verdicts on 2 pairs of models"),
    ],
)
def test_bad_verdicts_are_named(write, tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        annotations.read(write(tmp_path / "v.jsonl", [{"instruction": "q", "preference": 1}, row]))


def test_verdicts_without_a_vote_leave_the_result_that_is_there(write, tmp_path):
    row = {"instruction": "q", "generator_1": "b", "generator_2": "a"}
    good, bad = (write(tmp_path / f"{value}.jsonl", [row | {"preference": value}]) for value in (2, None))
    llm_judge.from_verdicts(good, workdir=str(tmp_path))
    files = {path: path.read_bytes() for path in (tmp_path / "eval/a").iterdir()}
    with pytest.raises(ValueError, match="no vote in all of a's answers"):
        llm_judge.from_verdicts(bad, workdir=str(tmp_path))
    assert len(files) == 2 and files == {path: path.read_bytes() for path in (tmp_path / "eval/a").iterdir()}


def test_a_dry_run_has_nothing_to_say_of_verdicts(write, command, tmp_path):
    result = command("judge", f"--verdicts={write(tmp_path / 'v.jsonl', [SAMPLE])}", "--dry_run")
    assert one_line(result) == "error: --dry_run: --verdicts asks nobody"
