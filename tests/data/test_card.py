import json
import re
from html.parser import HTMLParser

import pytest
from ml_collections import ConfigDict

from imitation_jax.data import card, nearest
from imitation_jax.tokenizers.tokenizer import load_tokenizer

QUERIES = [
    "Write a poem about the sea and the wind.",
    "Write a poem about the sea and the rain.",
    "Why is the sky blue in the morning?",
    "How do I sort a list in Python?",
    "Wie wird das Wetter am Wochenende in den Bergen?",
]
NASTY = "<script>alert('x')</script><img src=http://example.com/x.png>&amp;\u202e" + "long " * 200


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "


@pytest.fixture
def made(tmp_path):
    """`made(queries, **settings)` -> the card and its page."""

    def make(queries=QUERIES, tokens="", counts=None, **settings):
        path = tmp_path / "dialogues.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for number, query in enumerate(queries):
                turns = [{"role": "user", "content": query}, {"role": "assistant", "content": "one two three"}]
                turns *= number % 2 + 1
                file.write(json.dumps({"id": f"d{number}", "source": "t", "messages": turns}) + "\n")
        config = ConfigDict({"input": "a.json", "card": card.get_config()})
        config.card.update(settings | {"tokenizer": tokens})
        kept = len(queries)
        given = {"input": ["a.json"], "rows": kept + 3, "dialogues": kept, "rejected": 3, "reasons": {"no messages": 3}}
        given["funnel"] = [{"step": "read", "rows": kept + 3}, {"step": "structure", "rows": kept, "changed": 2}]
        result = card.Writer(config).write(tmp_path / "card", given | (counts or {}), path)
        assert result == json.loads((tmp_path / "card" / "card.json").read_text(encoding="utf-8"))
        return result, (tmp_path / "card" / "index.html").read_text(encoding="utf-8")

    return make


def test_counts_come_first_and_unchanged_and_sums_agree(made):
    result, _ = made(counts={"more": {"a": 1}})
    assert list(result)[:7] == ["input", "rows", "dialogues", "rejected", "reasons", "funnel", "more"]
    assert result["turns"] == {"user": 7, "assistant": 7}
    assert result["histogram_turns_per_dialogue"] == {"2": 3, "4": 2}
    assert result["languages"] == {"en": 4, "de": 1}
    kinds = {"generation": 2, "question answering": 1, "coding": 1, "non-English": 1}
    assert {kind: count for kind, count in result["categories"].items() if count} == kinds
    bleu = nearest.nearest(QUERIES).bleu
    assert result["nearest_query"]["mean"] == round(bleu.mean(), 2) and result["nearest_query"]["queries"] == 5
    for key in ("histogram_turns_per_dialogue", "histogram_characters_below", "languages", "categories"):
        assert sum(result[key].values()) == 5
    for histogram in (result["length"]["histogram_below"], result["nearest_query"]["histogram_below"]):
        assert sum(histogram.values()) == 5


def test_length_is_in_words_or_in_tokens_of_the_named_tokenizer(made, tiny_tokenizer, monkeypatch):
    result, page = made()
    words = sum(len(query.split()) * (number % 2 + 1) for number, query in enumerate(QUERIES))
    assert result["length"]["unit"] == "words" and result["length"]["by_role"] == {"user": words, "assistant": 21}
    assert "name a tokenizer in config.card.tokenizer" in Page(page).text
    monkeypatch.setattr(card, "BATCH", 2)  # also over several batches
    result, page = made(tokens=str(tiny_tokenizer))
    encode = load_tokenizer(str(tiny_tokenizer)).encode
    sizes = [
        (number % 2 + 1) * (len(encode(query)) + len(encode("one two three"))) for number, query in enumerate(QUERIES)
    ]
    assert result["length"]["unit"] == "tokens" and result["length"]["total"] == sum(sizes)
    assert (result["length"]["longest"], result["length"]["median"]) == (max(sizes), sorted(sizes)[2])
    assert str(tiny_tokenizer) in page


def test_a_tokenizer_that_is_not_there_is_said_before_the_work():
    config = ConfigDict({"card": card.get_config()})
    card.Writer(config)
    card.Writer(ConfigDict())
    config.card.tokenizer = "missing"
    with pytest.raises(FileNotFoundError, match="missing"):
        card.Writer(config)


def test_page_says_what_came_through_and_needs_no_network(made):
    _, html = made(counts={"sources": {"hc3": 3, "discord": 2}})
    page = Page(html)
    assert not page.open
    for said in (
        "8 rows read",
        "5 dialogues kept",
        "3 set aside",
        "structure 5 3 62.5%",
        "2 by structure",
        "no messages",
    ):
        assert " ".join(said.split()) in " ".join(reversed_facts(page.text).split())
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "link", "iframe")]
    assert not [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert "url(" not in html and "@import" not in html


def reversed_facts(text: str) -> str:
    """The facts have their number after their name in the page's source, and before it on the screen."""
    facts = re.findall(r"(rows read|dialogues kept|set aside) +([\d,]+) ", text)
    return text + " ".join(f"{value} {name}" for name, value in facts)


def test_texts_are_escaped_cut_and_only_in_the_page(made):
    result, html = made([NASTY, *QUERIES])
    page = Page(html)
    assert "<script>alert('x')</script>" in page.text and not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert " …" in page.text and "long " * (card.SHOWN_CHARACTERS // 5) not in page.text
    assert "alert" not in json.dumps(result)
    assert "alert" not in made([NASTY, *QUERIES], samples=0)[1]


def test_as_many_as_asked_are_looked_at_evenly(made):
    many = [f"question number {number} about the weather in spring" for number in range(100)]
    result, html = made(many, samples=4, nearest_queries=10, guessed_queries=7)
    assert re.findall(r"<h3>(d\d+)", html) == ["d24", "d49", "d74", "d99"]
    assert result["nearest_query"]["queries"] == 10 and sum(result["categories"].values()) == 7
    result, html = made(many, samples=0, nearest_queries=0, guessed_queries=0)
    assert (result["nearest_query"], result["categories"], result["languages"]) == ({}, {}, {})
    assert not Page(html).open and "What is asked" not in html and "How alike" not in html


def test_one_dialogue_and_odd_sizes_make_a_page(made):
    result, html = made(["x"])
    assert result["nearest_query"] == {} and not Page(html).open
    _, html = made(["word", "word " * 5000])
    rows = re.findall(r'<th scope="row">([\d,–]+)</th>', html)
    assert rows[:1] == ["2–3"] and "4,096–8,191" in rows and "128–255" in rows


def test_names_that_utf8_cannot_hold_do_not_break_the_card(made):
    result, html = made(counts={"input": ["caf\udce9.json"]})
    assert result["input"] == ["caf\udce9.json"] and "caf\\udce9.json" in html


def test_same_data_same_bytes(made):
    assert made()[1] == made()[1]
