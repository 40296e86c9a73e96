import json
import random

import pytest
import tokenizers
from tokenizers import Regex, pre_tokenizers, processors

from imitation_jax.evaluation.prompts import LineEncoder, cut_to_fit, encode_pairs, line_cuts, with_shots_that_fit
from imitation_jax.evaluation.tasks import mmlu
from imitation_jax.tokenizers.gguf import LLAMA3, QWEN2
from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

# What tokenizers treat in their own ways: white space of all kinds, contractions, digits, marks, special tokens.
ATOMS = ["\n", "\n", "\n\n", " ", "  ", "\t", "\r", "\r\n", "\u00a0", "\u2028", "\u0085", "\x1c", "\x0b", "\u200b"]
ATOMS += ["a", "Answer", "Answer:", " A", "B.", "?", "...", "123", " 42", "'s", "é", "e\u0301", "中文", "😀", "▁"]
ATOMS += ["<s>", "</s>", "<|im_start|>", "<|endoftext|>", "<0x0A>", "def f():", "\n    return"]


@pytest.fixture(scope="module", params=["tiny", "smollm2", "llama"])
def tokenizer(request):
    if request.param == "llama":
        return load_tokenizer(request.getfixturevalue("lent")("tokenizers/llama_tokenizer.model"))
    return load_tokenizer(request.getfixturevalue({"tiny": "tiny_tokenizer", "smollm2": "smollm2_gguf"}[request.param]))


def encode_pair(tokenizer, context, continuation):
    return encode_pairs(tokenizer, context, [continuation])[0]


def test_both_parts_together_are_the_text_encoded_whole(tokenizer):
    for context, continuation in (("Question: why?\nAnswer:", " because"), ("Answer:", " A"), ("un", "believable")):
        left, right = encode_pair(tokenizer, context, continuation)
        assert left == tokenizer.encode(context, add_special_tokens=True)
        if continuation.startswith(" "):
            assert left + right == tokenizer.encode(context + continuation, add_special_tokens=True)


def test_white_space_at_the_end_of_a_context_belongs_to_the_continuation(tokenizer):
    assert encode_pair(tokenizer, "Answer: ", "A") == encode_pair(tokenizer, "Answer:", " A")
    assert encode_pair(tokenizer, "Answer: \n", "A") == encode_pair(tokenizer, "Answer:", " \nA")


def test_an_empty_context_is_the_first_token_there_is(tokenizer):
    left, right = encode_pair(tokenizer, "", "Hello")
    assert left == [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
    assert right == tokenizer.encode("Hello")


def test_choices_share_one_context(tokenizer):
    pairs = encode_pairs(tokenizer, "Answer:", [" A", " B"])
    assert pairs[0][0] is pairs[1][0]
    assert [pair[1] for pair in pairs] == [encode_pair(tokenizer, "Answer:", text)[1] for text in (" A", " B")]


def test_a_continuation_that_merges_with_its_context_is_cut_where_the_ids_part(tokenizer):
    """The word with its end is one token, as it is without: the continuation is all of the word."""
    before, word, end = (" in the", " thir", "d") if tokenizer.vocab_size < 1000 else ("The capital of", " Fran", "k")
    context, continuation = encode_pair(tokenizer, before + word, end)
    assert [*context, *continuation] == tokenizer.encode(before + word + end)
    assert context == tokenizer.encode(before) and len(continuation) == 1


def test_nothing_to_score_is_refused(tokenizer):
    with pytest.raises(ValueError, match="adds no token"):
        encode_pair(tokenizer, "Answer:", "")


def pieces_of(tokenizer, seed, count):
    """Texts of random pieces with two continuations each, encoded line by line and whole: (ids, ids) pairs."""
    draw, encoder = random.Random(seed), LineEncoder(tokenizer)
    for _ in range(count):
        text, *more = ("".join(draw.choices(ATOMS, k=draw.randint(1, most))) for most in (14, 3, 3))
        whole = [tokenizer.encode(text + end, add_special_tokens=True) for end in ("", *more)]
        yield encoder.encode_continued(text, more), whole
        yield encoder.encode(text), whole[0]


def rebuilt(tokenizer, **parts):
    """`tokenizer` with other parts, as a tokenizer.json would bring them."""
    spec = json.loads(tokenizer.backend.to_str()) | parts
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), tokenizer.config)


def test_line_by_line_gives_the_ids_of_the_whole(tokenizer):
    assert line_cuts(tokenizer)[0]
    assert all(ids == whole for ids, whole in pieces_of(tokenizer, 0, 1500))


@pytest.mark.parametrize(("pattern", "cut"), [(LLAMA3, True), (QWEN2, True), (r"\w+|\s+|[^\w\s]+", False)])
def test_with_other_words_too(tiny_tokenizer, pattern, cut):
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    words = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tiny = load_tokenizer(tiny_tokenizer)
    backend = tokenizers.Tokenizer.from_str(tiny.backend.to_str())
    backend.pre_tokenizer = words
    other = Tokenizer(backend, tiny.config)
    assert bool(line_cuts(other)[0]) is cut
    assert all(ids == whole for ids, whole in pieces_of(other, 1, 500))


def test_tokens_put_before_and_after_a_text_stay_there(tokenizer):
    first, last = tokenizer.vocab_size, tokenizer.vocab_size + 1
    template = processors.TemplateProcessing(single="[ $A ]", special_tokens=[("[", first), ("]", last)])
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.post_processor = template
    other = Tokenizer(backend, tokenizer.config)
    ids = other.encode("a", add_special_tokens=True)
    assert (ids[0], ids[-1]) == (first, last)
    assert all(ids == whole for ids, whole in pieces_of(other, 2, 100))


def test_no_cuts_where_a_token_could_reach_over_a_line_break(tokenizer):
    added = {"id": tokenizer.vocab_size, "content": "a\nb", "normalized": False, "special": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    tokens = json.loads(tokenizer.backend.to_str())["added_tokens"]
    reaching = rebuilt(tokenizer, added_tokens=[*tokens, added | flags])
    assert reaching.encode("a\nb") == [tokenizer.vocab_size]
    assert line_cuts(reaching)[0] is None
    assert LineEncoder(reaching).encode("xa\nb") == reaching.encode("xa\nb")
    greedy = rebuilt(tokenizer, added_tokens=[*tokens, added | flags | {"content": "<x>", "rstrip": True}])
    assert line_cuts(greedy)[0] is None


def all_of_mmlu(lent, config_of):
    items = mmlu.read(config_of("mmlu", data_dir=str(lent("mmlu"))))
    return ["".join([item["header"], *item["shots"], item["prompt"]]) for item in items]


def same_ids(tokenizer, contexts):
    """How many contexts, with the four choices after each, have other ids line by line than whole."""
    different = 0
    for context in contexts:
        ids, *wholes = tokenizer.encode_batch([context, *(f"{context} {letter}" for letter in "ABCD")], True)
        pairs = encode_pairs(tokenizer, context, [f" {letter}" for letter in "ABCD"])
        different += pairs != [(ids, whole[len(ids) :]) for whole in wholes]
    return different


def test_the_ids_of_real_prompts(tokenizer, lent, config_of):
    assert same_ids(tokenizer, all_of_mmlu(lent, config_of)[::70]) == 0


@pytest.mark.slow
def test_the_ids_of_all_real_prompts(tokenizer, lent, config_of):
    contexts = all_of_mmlu(lent, config_of)
    assert len(contexts) == 14_042
    assert same_ids(tokenizer, contexts) == 0


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
