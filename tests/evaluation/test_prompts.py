import pytest

from imitation_jax.evaluation.prompts import cut_to_fit, encode_pairs, with_shots_that_fit
from imitation_jax.tokenizers.tokenizer import load_tokenizer


@pytest.fixture(scope="module", params=["smollm2", "llama"])
def tokenizer(request):
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2_tokenizer")
    return load_tokenizer(request.getfixturevalue("lent")("tokenizers/llama_tokenizer.model"))


def encode_pair(tokenizer, context, continuation):
    return encode_pairs(tokenizer, context, [continuation])[0]


def test_both_parts_together_are_the_text_encoded_whole(tokenizer):
    for context, continuation in (("Question: why?\nAnswer:", " because"), ("Answer:", " A"), ("un", "believable")):
        left, right = encode_pair(tokenizer, context, continuation)
        assert left == tokenizer.encode(context, add_special_tokens=True)
        if continuation.startswith(" "):
            assert left + right == tokenizer.encode(context + continuation, add_special_tokens=True)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(tokenizer):
    assert encode_pair(tokenizer, "Answer: ", "A") == encode_pair(tokenizer, "Answer:", " A")
    assert encode_pair(tokenizer, "Answer:\n", "A")[0] == tokenizer.encode("Answer:\n", add_special_tokens=True)


def test_an_empty_context_is_the_first_token_there_is(tokenizer):
    left, right = encode_pair(tokenizer, "", "Hello")
    assert left == [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
    assert right == tokenizer.encode("Hello")


def test_choices_share_one_context(tokenizer):
    pairs = encode_pairs(tokenizer, "Answer:", [" A", " B"])
    assert pairs[0][0] is pairs[1][0]
    assert [pair[1] for pair in pairs] == [encode_pair(tokenizer, "Answer:", text)[1] for text in (" A", " B")]


def test_nothing_to_score_is_refused(tokenizer):
    with pytest.raises(ValueError, match="adds no token"):
        encode_pair(tokenizer, "Answer:", "")


def encode_numbers(shots):
    return [([0] * 10 * len(shots) + [1, 2, 3, 4, 5], [6])]


@pytest.mark.parametrize(("limit", "kept"), [(36, 3), (35, 2), (16, 1), (15, 0), (6, 0)])
def test_shots_are_dropped_until_the_prompt_fits(limit, kept):
    pairs, count = with_shots_that_fit(["a", "b", "c"], encode_numbers, limit)
    assert count == kept
    assert len(pairs[0][0]) + 1 <= limit


def test_a_question_that_does_not_fit_keeps_its_end():
    pairs, count = with_shots_that_fit(["a"], encode_numbers, 4)
    assert (pairs, count) == ([([3, 4, 5], [6])], -1)


def test_only_what_does_not_fit_is_cut():
    pairs = [([1, 2, 3], [4]), ([1, 2, 3], [5, 6])]
    assert cut_to_fit(pairs, 5) == (pairs, False)
    assert cut_to_fit(pairs, 4) == ([([2, 3], [4]), ([2, 3], [5, 6])], True)
