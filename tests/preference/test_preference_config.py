"""What the keys of `judge` change."""

from imitation_jax.core.fingerprint import COMPARABLE, SAME
from imitation_jax.preference import config


def test_what_a_judge_costs_and_how_fast_it_is_makes_no_other_result():
    same = {"cache", "retry_refused", "name", "role", "key", "price", "budget", "requests_per_minute"}
    same |= {"tokens_per_minute", "concurrency", "tries", "first_wait", "timeout", "failures"}
    for keys in (config.JUDGE, config.TONE):
        assert {name.partition(".")[0] for name, key in keys.items() if key.effect not in SAME} == same


def test_two_models_answers_are_compared_where_the_judge_is_one():
    settings = {"task": "judge", "judge": "gpt-4", "wording": "0", "data_digest": "1", "opponent": "teacher"}
    keys = config.KEYS_OF_RESULTS["judge"]
    other = settings | {"data_digest": "2", "judge": "gpt-5", "wording": "1"}
    comparable = keys.differing(settings, other, COMPARABLE)
    assert list(comparable) == ["judge", "wording"]
