import random
from types import SimpleNamespace

import numpy as np
import pytest

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import normalise
from imitation_jax.data.cleaning import exact_duplicates, near_duplicates
from imitation_jax.data.sources import sharegpt

SETTINGS = SimpleNamespace(**near_duplicates.get_config().to_dict())
BEFORE = ["Please ", "Hi there! ", "I have a question: ", "Can you help me with this? ", "As an expert, "]
BEHIND = [" Thanks!", " Please answer briefly.", " Explain step by step.", " (in English)", " Give examples."]


def dialogue(name, *said):
    messages = [
        {"role": role, "content": text} for query in said for role, text in (("user", query), ("assistant", "yes"))
    ]
    return {"id": str(name), "source": "test", "messages": messages}


def asked(dialogue):
    return [turn["content"] for turn in dialogue["messages"] if turn["role"] == "user"]


def dropped(dialogues, *steps):
    """id -> (whole reason, id it names) of what the steps drop."""
    found = {}
    for item in dialogues:
        for step in steps or (exact_duplicates.ExactDuplicates(),):
            result = step(item)
            if isinstance(result, str):
                found[item["id"]] = result
                break
    return found


def edit(random, kind, texts):
    first, last = texts[0], texts[-1]
    if kind == "prefix":
        return [random.choice(BEFORE) + first, *texts[1:]]
    if kind == "suffix":
        return [*texts[:-1], last + random.choice(BEHIND)]
    if kind == "case":
        return [random.choice([str.upper, str.lower, str.title])(text) for text in texts]
    return ["".join(random.choice(["  ", "\n", " \t "]) if char == " " else char for char in text) for text in texts]


@pytest.fixture(scope="module")
def real(lent):
    """Real dialogues, no two of which are near."""
    read = sharegpt.read([str(lent("sharegpt/sharegpt_sample.jsonl.gz"))])
    dialogues = [item for _, item in read if not isinstance(item, Rejected)]
    near = near_duplicates.NearDuplicates(SETTINGS)
    return [item for item in dialogues if not isinstance(near(item), str)]


@pytest.mark.parametrize("turns", [1, None])
def test_planted_copies_are_found_and_nothing_else(real, turns):
    """Copies of real queries, of first turns alone as well, edited before, behind, in case or in whitespace."""
    random_ = random.Random(0)
    base = [dialogue(number, *asked(item)[:turns]) for number, item in enumerate(real)]
    own = dropped(base, exact_duplicates.ExactDuplicates(), near_duplicates.NearDuplicates(SETTINGS))
    base = [item for item in base if item["id"] not in own and len("".join(asked(item))) >= 40][:1200]
    planted = {}
    for number, item in enumerate(random_.sample(base, 400)):
        kind = ("prefix", "suffix", "case", "whitespace")[number % 4]
        copy = dialogue(f"copy {number}", *edit(random_, kind, asked(item)))
        base.insert(random_.randrange(base.index(item) + 1, len(base) + 1), copy)
        planted[copy["id"]] = item["id"]
    found = dropped(base, exact_duplicates.ExactDuplicates(), near_duplicates.NearDuplicates(SETTINGS))
    right = [name for name, reason in found.items() if f" {planted.get(name)}" in reason.replace(",", " ")]
    assert len(right) >= 0.95 * len(planted), len(right)
    assert len(right) >= 0.99 * len(found), (len(right), len(found))


def test_what_a_short_query_decides():
    items = [
        dialogue("a", "hi", "How do plants make sugar out of light and water?", "continue"),
        dialogue("b", "hi", "Which rivers of Europe flow from west to east?", "continue"),
        dialogue("c", "hi"),
        dialogue("d", "continue"),
        dialogue("e", "Continue."),
        dialogue("f", "Hi!"),
        dialogue("g", "hi", "hi"),
        dialogue("h", "continue please"),
    ]
    found = dropped(items, exact_duplicates.ExactDuplicates(), near_duplicates.NearDuplicates(SETTINGS))
    assert found == {
        "e": "exact duplicate: same query as d",
        "f": "exact duplicate: same query as c",
    }


def test_what_normalising_keeps_apart():
    same = ["What is 2+2 ?", "what  is\n2+2", "“What is 2+2?”", "WHAT IS 2+2!!"]
    assert len({normalise.query(text) for text in same}) == 1
    other = ["What is 2-2?", "What is 22?", "What is 2+2=?", "?", "??", "C", "C++", "C#", "", "日本", "日本語"]
    assert len({normalise.query(text) for text in other}) == len(other)


def test_a_reason_names_an_earlier_dialogue_and_likeness():
    text = "Write a long letter to my landlord about the heating that has not worked since last Monday"
    items = [dialogue("first", text), dialogue("second", text + ", please"), dialogue("third", "Hello. " + text)]
    found = dropped(items, near_duplicates.NearDuplicates(SETTINGS))
    assert list(found) == ["second", "third"]
    for reason in found.values():
        assert reason.startswith("near duplicate: query like that of first, Jaccard 0.9")


def test_later_dialogues_change_nothing_and_dropped_ones_count():
    """What is near a duplicate is one, so that each dialogue's fate is settled by those before it."""
    words = [f"word{number}" for number in range(100)]
    chain = [dialogue(step, " ".join(words[4 * step : 4 * step + 40])) for step in range(5)]
    found = dropped(chain, near_duplicates.NearDuplicates(SETTINGS))
    assert list(found) == ["1", "2", "3", "4"]
    assert "that of 0," in found["1"] and "that of 0," not in found["4"]
    assert list(dropped(chain[:3], near_duplicates.NearDuplicates(SETTINGS))) == ["1", "2"]


def test_shingles_are_exact_and_signatures_tell_their_likeness():
    assert near_duplicates.shingles("abcd").size == 0
    assert near_duplicates.shingles("abcdeabcde").size == 5
    random_ = np.random.default_rng(0)
    many = random_.integers(0, 2**40, 3000, np.uint64)
    settings = SimpleNamespace(**vars(SETTINGS) | {"bands": 512, "hashes_a_band": 1})
    for share in (0.2, 0.5, 0.8):
        both = int(2000 * 2 * share / (1 + share))
        one, other = many[:2000], many[2000 - both : 4000 - both]
        equal = (near_duplicates.bands(one, settings) == near_duplicates.bands(other, settings)).mean()
        exact = np.intersect1d(one, other).size / np.union1d(one, other).size
        assert abs(equal - exact) < 0.08


def test_buckets_in_arrays_say_what_buckets_in_a_dict_do(monkeypatch):
    def run(recent):
        monkeypatch.setattr(near_duplicates, "RECENT", recent)
        random_ = np.random.default_rng(0)
        buckets = near_duplicates._Buckets(3)
        return [buckets.earlier(random_.integers(2**63, 2**63 + 50, 4, np.uint64), row) for row in range(300)]

    wanted = run(10**6)
    assert run(7) == wanted and run(40) == wanted
    assert max(map(len, wanted)) > 3
