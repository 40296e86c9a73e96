import re

import pytest
from markupsafe import Markup

from imitation_jax.reporting.highlight import features, highlighted

LIST = "Try this:\n\n- begin <early>\n2) ask & wait\n\n\n Overall, be patient."


def test_list_items_and_the_summary_are_highlighted():
    text = highlighted(LIST, None)
    assert re.findall(r'<b class="list">(.*?)</b>', text) == ["-", "2)"]
    assert re.findall(r'<b class="summary">(.*?)</b>', text) == ["Overall"]
    assert "&lt;early&gt;" in text


def test_shared_words_are_marked_as_often_as_the_reference_has_them():
    text = highlighted("the cat and the dog and the cow", "The dog saw the cat")
    assert re.findall("<u>(.*?)</u>", text) == ["the cat", "the dog"]


@pytest.mark.parametrize(
    "answer", [LIST, "", "1. 1. 1", "a\n\nIn short <b>x</b>", "- \n- a", "\n\nOverall\n\nOverall, 1. x"]
)
def test_marks_change_no_word(answer):
    for reference in (None, "", answer, "1 a overall x"):
        assert Markup(re.sub(r'</?[bu](?: class="\w+")?>', "", highlighted(answer, reference))).unescape() == answer


def test_features_in_words():
    assert features(LIST, None) == "list, summary paragraph, 12 words"
    assert features("a b", "a c") == "50% of words shared, 2 words"
