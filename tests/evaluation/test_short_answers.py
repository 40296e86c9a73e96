import pytest

from imitation_jax.evaluation import short_answers
from imitation_jax.evaluation.short_answers import exact_match, f1, squad
from imitation_jax.evaluation.tasks import natural_questions, trivia_qa


def test_normalisation_is_squads():
    assert squad("  The  Beatles' an A.B.C. ") == "beatles abc"
    assert exact_match("the December, 1972", ["14 December 1972 UTC", "December 1972"])
    assert not exact_match("December", ["December 1972"])
    assert f1("in December of 1972", ["December 1972"]) == pytest.approx(2 * 2 / 6)
    assert f1("no idea", ["December 1972"]) == 0.0
    assert f1("The", ["a"]) == 1.0  # both empty after normalisation
    assert f1("Bob Russell", ["Bobby Scott", "Bob Russell"]) == 1.0


# What lm-eval 0.4.13 says: articles go before the case does, and spaces stay.
@pytest.mark.parametrize(
    ("prediction", "gold", "nq_counts", "trivia_counts"),
    [
        ("THE BEATLES", "The Beatles", False, True),
        ("the Beatles", "The Beatles", True, True),
        ("Beatles!", "the Beatles", True, False),
        ("a  Beatle", "A Beatle", False, False),
        ("Jean-Paul", "jean paul", False, False),
        ("A.B.C.", "abc", True, True),
    ],
)
def test_lm_evals_exact_match(prediction, gold, nq_counts, trivia_counts):
    assert exact_match(prediction, [gold], natural_questions.lm_eval) == nq_counts
    assert exact_match(prediction, [gold], short_answers.lower_unpunctuated) == trivia_counts


def test_trivia_qas_official_normalisation_puts_spaces_for_punctuation():
    assert trivia_qa.official("The_Man-\u2018in\u2019 the  Moon!") == "man in moon"
    assert exact_match("jean paul", ["Jean-Paul"], trivia_qa.official)
    assert not exact_match("jean paul", ["Jean-Paul"])
