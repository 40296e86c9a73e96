import math

import pytest

from imitation_jax.evaluation.tasks import lambada
from imitation_jax.inference.requests import Score


def test_the_last_word_is_scored_and_must_be_what_the_model_would_write(
    write, tmp_path, config_of, scripted, answer_all
):
    rows = [{"text": "They met at\n the old mill."}, {"passage": "Give it to Ann\n"}]
    rows += [{"context": "I saw", "continuation": "Bo"}]
    engine = scripted()
    decode, scores = engine.tokenizer.decode, {" mill.": (-1.0, True), " Ann": (-2.0, False), " Bo": (-6.0, True)}

    def score(requests, on_result):
        for index, request in enumerate(requests):
            engine.asked.append((decode(request.context), decode(request.continuation)))
            on_result(index, Score(*scores[engine.asked[-1][1]], len(request.continuation)))

    engine.score = score
    config = config_of("lambada", data=write(tmp_path / "l.jsonl", *rows))
    samples, found = answer_all(lambada, engine, config)
    assert engine.asked == [("They met at\n the old", " mill."), ("Give it to", " Ann"), ("I saw", " Bo")]
    assert [sample["correct"] for sample in samples] == [True, False, True]
    assert [(sample["prediction"], sample["gold"]) for sample in samples[:2]] == [("mill.", "mill."), (None, "Ann")]
    assert [sample["logprobs"] for sample in samples] == [[-1.0], [-2.0], [-6.0]]
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(3))
    assert found["counts"] == {"passages_cut": 0}
    texts = [lambada.text(item) for item in lambada.read(config)]
    assert texts == ["They met at\n the old mill.", "Give it to Ann", "I saw Bo"]


def test_a_passage_that_does_not_fit_keeps_its_end(write, tmp_path, config_of, scripted, answer_all):
    engine = scripted(context=8)
    text = "a b c d e f g h i j k l m n"
    data = write(tmp_path / "l.jsonl", {"text": text})
    [sample], found = answer_all(lambada, engine, config_of("lambada", data=data))
    end = engine.tokenizer.decode(engine.tokenizer.encode(text)[-9:])  # the last token is only scored, not read
    assert engine.asked == [end] and sample["shots"] == -1
    assert found["counts"] == {"passages_cut": 1}


@pytest.mark.parametrize("bad", [{"text": "word"}, {"text": " word"}, {"context": "a"}, {"line": "a b"}])
def test_bad_rows_are_named(write, tmp_path, config_of, bad):
    with pytest.raises(ValueError, match="l.jsonl:2: needs a 'text'"):
        lambada.read(config_of("lambada", data=write(tmp_path / "l.jsonl", {"text": "a b"}, bad)))
