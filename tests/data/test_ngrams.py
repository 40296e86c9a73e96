import json
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imitation_jax.core import json_rows
from imitation_jax.data import ngrams, normalise

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SHORT = "who wrote the first book about the moon"  # eight words
# Few words and runs of them, so that texts share many; some differ only in what is ignored, some are no words at all.
PIECES = ["a", "A", "b,", "(B)", "é", "E!", "ﬁn", "fin", "Σας", "日本", "x" * 70, "_", "-", "’", "\u200b", "\ud800"]
PIECES += ["a b a b a b a b", "a b a\nb A b", "b a-b E é a (b)", "e b. a b - É b a", "a b e b a b e a b"]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\x1c", "\u00a0", "\u2028", " \n "]
TEXT = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(SPACES)), max_size=15).map(
    lambda pairs: "".join(piece + space for piece, space in pairs)
)


def plain_words(text):
    return re.sub(r"[^\w\s]|_", "", unicodedata.normalize("NFKD", text).lower()).split()


def plain_grams(words):
    """The n-grams that a text is known by."""
    if len(words) < 8:
        return set()
    return {" ".join(words[at : at + 13]) for at in range(max(1, len(words) - 12))}


def plain_find(indexed, searched):
    """(searched text, n-gram, indexed texts), by looking for each n-gram at each word of each text."""
    holders = {}
    for item, text in enumerate(indexed):
        for gram in plain_grams(plain_words(text)):
            holders.setdefault(gram, []).append(item)
    found = set()
    for number, text in enumerate(searched):
        padded = f" {' '.join(plain_words(text))} "
        found |= {(number, gram, tuple(items)) for gram, items in holders.items() if f" {gram} " in padded}
    return found


@given(st.one_of(st.text(), TEXT, st.text(st.characters(max_codepoint=127))))
@settings(deadline=None)
def test_words_are_those_of_the_plain_rule(text):
    assert normalise.words(text).split(" ") == (plain_words(text) or [""])


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5))
@settings(deadline=None, max_examples=200)
def test_finds_what_the_plain_rule_finds(indexed, searched):
    assert set(ngrams.Ngrams(indexed).find(searched)) == plain_find(indexed, searched)


@given(st.lists(TEXT, min_size=1, max_size=4), st.data())
@settings(deadline=None)
def test_finds_a_text_within_another(indexed, data):
    item = data.draw(st.integers(0, len(indexed) - 1))
    around = data.draw(TEXT), data.draw(TEXT)
    hits = ngrams.Ngrams(indexed).find([f"{around[0]}\n{indexed[item].upper()}\n{around[1]}"])
    assert plain_grams(plain_words(indexed[item].upper())) <= {hit.words for hit in hits}


@pytest.mark.parametrize("zeros", ["POWERS", "INVERSES"])
def test_colliding_hashes_find_nothing(zeros, monkeypatch):
    indexed, searched = [LONG, SHORT], [LONG[4:], LONG.replace("nine", "nein"), f"{SHORT} landing", SHORT[:-5]]
    expected = ngrams.Ngrams(indexed).find(searched)
    monkeypatch.setattr(ngrams, zeros, getattr(ngrams, zeros) * 0)  # all words hash to 0
    assert ngrams.Ngrams(indexed).find(searched) == expected
    assert set(expected) == {(0, normalise.words(LONG[4:]), (0,)), (2, SHORT, (1,))}


def test_a_short_text_counts_as_a_whole_and_a_shorter_one_never():
    index = ngrams.Ngrams([SHORT, "what is the capital of France?", "", LONG])
    assert index.too_short == [1, 2]
    assert index.find(["so: Who wrote the first book, about the MOON?"]) == [(0, SHORT, (0,))]
    assert index.find(["who wrote the first book about the sun", "what is the capital of france"]) == []
    twelve = " ".join(LONG.split()[:12])
    assert index.find([twelve]) == []
    assert [hit.words for hit in index.find([f"{twelve} thirteen"])] == [f"{twelve} thirteen"]


def test_words_of_two_texts_are_not_in_a_row():
    words = LONG.split()
    assert ngrams.Ngrams([LONG]).find([" ".join(words[:9]), " ".join(words[9:])]) == []
    assert ngrams.Ngrams([" ".join(words[:9]), " ".join(words[9:])]).too_short == [1]


def test_texts_longer_than_what_is_hashed_at_once():
    filler = "x" * (ngrams.LONGEST_WORD * 3)  # words that differ only behind what is hashed of them
    item = " ".join(f"{filler}{k}" for k in range(13))
    index = ngrams.Ngrams([item, LONG])
    for before in (0, ngrams.BLOCK - 40, ngrams.BLOCK, 3 * ngrams.BLOCK + 17):
        text = f"{'y ' * (before // 2)}{item} {'z' * before} {LONG}"
        assert {hit.items for hit in index.find([text])} == {(0,), (1,)}
    assert index.find([item.replace(f"{filler}7", f"{filler}9")]) == []


def test_nothing_to_look_for_and_nowhere():
    assert ngrams.Ngrams([]).find([LONG]) == []
    assert ngrams.Ngrams(["too short"]).find([LONG, ""]) == []
    assert ngrams.Ngrams([LONG]).find([]) == []


def test_scan_gives_every_row_in_order_with_its_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(ngrams, "CHARACTERS_AT_ONCE", 200)
    lines, expected = [], {}
    for number in range(50):
        said = ["nothing of interest"] * 3 + ([f"Well, {LONG}"] if number % 7 == 0 else [])
        keys = ("from", "value") if number % 2 else ("role", "content")
        turns = [dict(zip(keys, ("user", text), strict=True)) for text in said]
        lines.append(json.dumps({"conversations" if number % 2 else "messages": turns}))
        expected[number] = [3, 3] if number % 7 == 0 else []
    lines[11] = lines[11][:30]
    lines[12] = json.dumps({"conversations": [{"value": None}, "no turn", {"value": SHORT}]})
    lines[13] = json.dumps({"text": f"Once. {LONG}"})  # plain text, as a mixture trains on it
    expected |= {11: [], 12: [0], 13: [0, 0]}
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = list(ngrams.scan(ngrams.Ngrams([LONG, SHORT]), json_rows.read(path)))
    assert [where for where, _, _ in found] == [f"{path}:{number + 1}" for number in range(50)]
    assert {number: [hit.text for hit in hits] for number, (_, _, hits) in enumerate(found)} == expected
    assert isinstance(found[11][1], json_rows.Rejected)


def test_real_prompts_in_real_dialogues_are_those_of_the_plain_rule(lent):
    dump = lent("sharegpt/sharegpt_sample.jsonl.gz")
    prompts = [row["prompt"] for _, row in json_rows.read(lent("koala_test_set/koala_test_set.jsonl"))]
    read = [(where, row) for number, (where, row) in enumerate(json_rows.read(dump)) if number % 4 == 0]
    found = {
        (where, hit.text, hit.words) for where, _, hits in ngrams.scan(ngrams.Ngrams(prompts), read) for hit in hits
    }
    grams = {gram for prompt in prompts for gram in plain_grams(plain_words(prompt))}
    sizes = {len(gram.split()) for gram in grams}
    expected = set()
    for where, row in read:
        for number, text in enumerate(ngrams.turns(row)):
            words = plain_words(text)
            for size in sizes:
                runs = {" ".join(words[at : at + size]) for at in range(len(words) - size + 1)}
                expected |= {(where, number, gram) for gram in runs & grams}
    assert found == expected
