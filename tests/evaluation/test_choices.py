import functools
import itertools
import math
import random

import numpy as np
import pytest

from imitation_jax.evaluation import choices
from imitation_jax.evaluation.tasks import facts


def sample(confidence, correct):
    return {"logprobs": [math.log(confidence) - 3, math.log(1 - confidence) - 3], "correct": correct}


def test_expected_calibration_error_by_hand():
    # Two bins of five: (.6, .8] holds .7 right, .8 wrong, .8 right; (.8, 1] holds .9 right.
    samples = [sample(0.7, True), sample(0.8 - 1e-9, False), sample(0.8 - 1e-9, True), sample(0.9, True)]
    found = choices.calibration_error(samples, 5)
    wanted = 3 / 4 * abs(2 / 3 - 2.3 / 3) + 1 / 4 * abs(1 - 0.9)
    assert found["value"] == pytest.approx(wanted, abs=1e-6) and found["n"] == 4
    one = abs(3 / 4 - (0.7 + 0.8 + 0.8 + 0.9) / 4)
    assert choices.calibration_error(samples, 1)["value"] == pytest.approx(one, abs=1e-6)
    assert choices.calibration_error([], 15)["value"] is None


def test_calibration_error_of_the_calibrated_and_of_the_sure():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.5, 1, 20_000)
    right = rng.uniform(size=20_000) < shares
    calibrated = choices.calibration_error([sample(*pair) for pair in zip(shares, right, strict=True)], 15)
    assert calibrated["value"] < 0.015
    sure = choices.calibration_error([sample(1 - 1e-12, bool(hit)) for hit in right[:2000]], 15)
    assert sure["value"] == pytest.approx(1 - right[:2000].mean(), abs=1e-6)
    # All in one bin: the error is that of a share.
    assert sure["stderr"] == pytest.approx(np.std(right[:2000]) / math.sqrt(2000), rel=0.1)


def test_normalised_is_per_character_as_lm_evals_acc_norm():
    judged = choices.judge(["ab", "éééé"], 1, [-3.0, -5.0])
    assert (judged["prediction"], judged["prediction_normalised"]) == (0, 1)
    # -1.5 against -1.625 a character; a byte it would be -1.5 against -1.3.
    judged = choices.judge(["ab", "éabc"], 1, [-3.0, -6.5])
    assert (judged["correct"], judged["correct_normalised"]) == (False, False)


def parse(where, row):
    return choices.question(where, row["q"], f"Q: {row['q']}\nA:", ["yes", "no"], row["a"])


@pytest.fixture
def config(config_of, tmp_path):
    """The facts config with shots; "test.csv" has 3 questions, "train.csv" 6 others."""
    for name, numbers in (("test", range(3)), ("train", range(10, 16))):
        lines = "".join(f"n{number},{number % 2}\n" for number in numbers)
        (tmp_path / f"{name}.csv").write_text(f"q,a\n{lines}")
    config = config_of("facts", data=str(tmp_path / "test.csv"))
    config.update(shots=2, same_shots=False, seed=1234, shots_data=str(tmp_path / "train.csv"))
    return config


def test_shots_are_drawn_as_lm_eval_draws_them(config):
    items = choices.read_items(config, parse)
    draws = random.Random(1234)
    for item in items:
        numbers = draws.sample(range(10, 16), 2)
        assert item["shots"] == [f"Q: n{n}\nA: {('yes', 'no')[n % 2]}\n\n" for n in numbers]
    config.same_shots = True
    same = choices.read_items(config, parse)
    assert [item["shots"] for item in same] == [items[0]["shots"]] * 3


def test_a_question_is_never_its_own_shot(config, tmp_path):
    (tmp_path / "copy.csv").write_text((tmp_path / "test.csv").read_text())
    for path, same, seed in itertools.product((config.data, str(tmp_path / "copy.csv")), (False, True), range(20)):
        config.update(shots_data=path, same_shots=same, seed=seed)
        for number, item in enumerate(choices.read_items(config, parse)):
            others = {0, 1, 2} - {number}
            assert sorted(item["shots"]) == [f"Q: n{n}\nA: {('yes', 'no')[n % 2]}\n\n" for n in others]
    config.update(shots=3, shots_data=config.data)
    with pytest.raises(ValueError, match="config.shots_data=.*: 3 questions can be examples, 4 are needed"):
        choices.read_items(config, parse)
    for key, value in (("shots", -1), ("calibration_bins", 0)):
        config[key] = value
        with pytest.raises(ValueError, match=f"config.{key}={value}: must be"):
            choices.check(config)
        config[key] = 1


def test_shots_stand_before_the_question_and_are_dropped_where_too_long(config, scripted, answer_all, monkeypatch):
    monkeypatch.setattr(facts, "read", functools.partial(choices.read_items, parse=parse))
    engine = scripted(likes={"A: no": -1.0})
    samples, found = answer_all(facts, engine, config)
    items = choices.read_items(config, parse)
    assert samples[1]["prompt"] == "".join(items[1]["shots"]) + "Q: n1\nA:"
    assert engine.asked[2:4] == [samples[1]["prompt"] + " yes", samples[1]["prompt"] + " no"]
    assert [row["correct"] for row in samples] == [False, True, False]
    assert set(found["counts"].values()) == {0}
    limit = len(engine.requests[2].context)
    monkeypatch.setattr(engine.config, "max_position_embeddings", limit - 1)
    samples, found = answer_all(facts, engine, config)
    assert [row["shots"] for row in samples] == [1, 1, 1]
    assert samples[1]["prompt"] == items[1]["shots"][0] + "Q: n1\nA:"
    assert found["counts"] == {"questions_with_fewer_shots": 3, "shots_dropped": 3, "questions_cut": 0}
