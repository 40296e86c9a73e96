"""Who is shown what, and that every vote is there once."""

import threading
import time
from collections import Counter

import pytest
from scipy.stats import binomtest

from imitation_jax.preference.rating import items
from imitation_jax.preference.rating.database import LEASE, choice_of, vote_of
from imitation_jax.preference.rating.items import with_checks


def test_every_item_gets_its_ratings_each_by_another_rater(open_store, rate):
    store = open_store(12)
    assert [rate(store, name) for name in ("ann", "bob", "cem", "dee")] == [12, 12, 12, 0]
    votes = store.votes()
    assert len({(vote.item, vote.rater) for vote in votes}) == len(votes) == 36
    assert set(Counter(vote.item for vote in votes).values()) == {3}


def test_raters_at_the_same_time_never_share_a_place(open_store, rate):
    store, failed = open_store(40), []

    def work(name):
        try:
            rate(store, name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"rater {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(Counter(vote.item for vote in store.votes()).values()) == {3} and len(store.votes()) == 120


def test_items_that_others_have_begun_come_first(open_store, rate):
    """So that whole items come out of an evaluation that ends early."""
    store = open_store(20)
    for name in ("ann", "bob", "cem"):
        rate(store, name, most=5)
    assert Counter(Counter(vote.item for vote in store.votes()).values()) == {3: 5}


def test_the_order_is_a_fair_coin_and_raters_begin_with_different_items(open_store, rate):
    store = open_store(120)
    for name in ("ann", "bob", "cem"):
        rate(store, name)
    votes = store.votes()
    assert binomtest(sum(vote.a_first for vote in votes), len(votes)).pvalue > 1e-4
    by_item = Counter(vote.item for vote in votes if vote.a_first)
    assert len({by_item[f"i{number}"] for number in range(120)}) == 4  # not one order an item
    first = {vote.rater: vote.item for vote in reversed(votes)}
    assert len(set(first.values())) == 3


def test_an_open_task_comes_again_with_its_order(open_store):
    store = open_store(12)
    rater = store.rater(store.join("ann"))
    assert store.task(rater) == store.task(rater)
    assert store.task(rater)[1:] == (0, 12)


def test_a_vote_sent_twice_counts_once_and_a_second_one_must_know_the_first(open_store):
    store = open_store(12)
    rater, other = (store.rater(store.join(name)) for name in ("ann", "bob"))
    task, _, _ = store.task(rater)
    assert store.vote(rater, task.id, 1, None) is True
    assert store.vote(rater, task.id, 1, None) is True  # the answer got lost, so it was sent again
    assert store.vote(rater, task.id, 3, None) is False  # another tab, which knew of no vote
    assert store.shown(rater, task.id).choice == 1
    assert store.vote(rater, task.id, 3, 1) is True  # changed on purpose
    assert store.shown(rater, task.id).choice == 3 and len(store.votes()) == 1
    assert store.vote(other, task.id, 1, 3) is None and store.shown(other, task.id) is None
    assert store.last(rater) == task.id and store.last(other) is None


def test_an_abandoned_task_s_place_is_given_away_and_its_late_vote_counts(open_store):
    store = open_store(1, ratings=1)
    ann, bob = (store.rater(store.join(name)) for name in ("ann", "bob"))
    now = time.time()
    left, _, _ = store.task(ann, now)
    assert store.task(bob, now + LEASE / 2)[0] is None
    taken, _, _ = store.task(bob, now + LEASE + 1)
    assert store.vote(bob, taken.id, 1, None) and store.vote(ann, left.id, 1, None)
    assert len(store.votes()) == 2


def test_attention_checks_come_once_in_so_many_pairs_at_places_of_their_own(open_store, rate):
    store = open_store(60, check_every=5)
    for name in ("ann", "bob", "cem"):
        rate(store, name, lambda item, expected: expected or 0)
    places = {}
    for name in ("ann", "bob", "cem"):
        votes = [vote for vote in store.votes() if vote.rater == name]
        places[name] = [number for number, vote in enumerate(votes) if vote.expected is not None]
        assert 14 <= len(places[name]) <= 15 and all(n // 5 == block for block, n in enumerate(places[name]))
        assert len({vote.item for vote in votes}) == len(votes)
    assert len({tuple(found) for found in places.values()}) == 3
    assert {vote.expected for vote in store.votes()} == {None, -1, 0, 1}
    assert all(vote.counts for vote in store.votes())


def test_attention_checks_are_an_answer_twice_or_one_to_another_instruction(open_store):
    items = {item["instruction"]: item for item in open_store(20).items() if item["expected"] is None}
    checks = [item for item in open_store(20).items() if item["expected"] is not None]
    assert len(checks) == 20
    for check in checks:
        own = items[check["instruction"]]["b"]
        assert (check["a"] == own) == (check["expected"] >= 0) and (check["b"] == own) == (check["expected"] <= 0)


def test_an_answer_to_the_same_words_is_no_check():
    pairs = [
        {"id": str(number), "instruction": "Say  it.", "output": "o", "reference": "abc"[number]} for number in range(3)
    ]
    pairs += [{**pairs[0], "id": "3", "instruction": "Say it."}]
    assert [item["expected"] for item in with_checks(pairs, 0)] == [None] * 4 + [0] * 4


def test_an_item_may_have_the_name_of_a_check(tmp_path):
    names = ("check 0", "check  1", "check x")
    pairs = [{"id": name, "instruction": name, "output": "o", "reference": f"r {name}"} for name in names]
    items = with_checks(pairs, 0)
    assert len({item["id"] for item in items}) == len(items) == 6


def test_who_fails_the_checks_does_not_count_and_others_get_the_places(open_store, rate):
    store = open_store(30, check_every=5)
    rate(store, "careless", lambda item, expected: 1 if expected is None else (expected + 2) % 3 - 1)
    for name in ("ann", "bob", "cem"):
        rate(store, name, lambda item, expected: expected or 0)
    votes = store.votes()
    assert {vote.rater for vote in votes if not vote.counts} == {"careless"}
    counted = Counter(vote.item for vote in votes if vote.counts and vote.expected is None)
    assert len(counted) == 30 and set(counted.values()) == {3}


def test_one_slip_is_forgiven(open_store, rate):
    store, slips = open_store(30, check_every=5), []

    def rule(item, expected):
        if expected is not None and not slips:
            slips.append(item)
            return (expected + 2) % 3 - 1
        return expected or 0

    rate(store, "ann", rule)
    assert slips and all(vote.counts for vote in store.votes())


def test_progress_counts_down(open_store):
    store = open_store(9, check_every=4)
    rater, seen = store.rater(store.join("ann")), []
    while (found := store.task(rater))[0]:
        seen.append(found[1:])
        store.vote(rater, found[0].id, 2, None)
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert all(later[1] <= former[1] for former, later in zip(seen, seen[1:], strict=False)) and seen[-1][1] == 1


def test_names_are_taken_once_and_secrets_are_no_names(open_store):
    store = open_store()
    secret = store.join("ann")
    with pytest.raises(ValueError, match="This name is taken"):
        store.join("ann")
    assert store.rater(secret) and store.rater("ann") is None and store.rater("") is None
    assert store.join("bob", "drawn by bob") == store.join("bob", "drawn by bob")  # the answer got lost
    for name, drawn in (("bob", "of another"), ("cem", "drawn by bob")):
        with pytest.raises(ValueError, match="This name is taken"):
            store.join(name, drawn)
    assert store.rater("drawn by bob") and store.rater("of another") is None


def test_votes_from_elsewhere_close_what_was_open_and_those_with_another_s_id_are_counted(open_store):
    store = open_store(2)
    rater = store.rater(store.join("ann"))
    task, _, _ = store.task(rater)
    item = "i" + task.instruction.removeprefix("Instruction ").removesuffix("?")
    vote = {"task": "as0", "item": item, "rater": "ann", "a_first": True, "shown": 1.0, "vote": -1, "voted": 2.0}
    clash = {**vote, "rater": "bob", "voted": 3.0}
    assert store.add([vote, {**clash, "task": task.id}]) == (1, 0, 1)
    assert store.add([vote, {**clash, "task": "as0"}]) == (1, 1, 0)
    assert [(found.rater, found.vote) for found in store.votes()] == [("ann", -1), ("bob", -1)]
    assert store.shown(rater, task.id).choice == 3 and store.vote(rater, task.id, 1, None) is False


@pytest.mark.parametrize("a_first", [True, False])
def test_choices_and_votes_are_inverse(a_first):
    assert [choice_of(vote_of(choice, a_first), a_first) for choice in (1, 2, 3)] == [1, 2, 3]
    assert vote_of(1, a_first) == (1 if a_first else -1) and vote_of(2, a_first) == 0


def test_the_same_files_go_on_and_others_are_refused(open_store, write_answers, rate, tmp_path):
    rate(open_store(12), "ann", most=2)
    assert len(open_store(12).votes()) == 2
    with pytest.raises(ValueError, match="was started with other ratings; name another file"):
        open_store(12, ratings=5)
    with pytest.raises(ValueError, match="was started with other answers; name"):
        open_store(11)
    path = str(tmp_path / "ratings.db")
    again = items.open_store(path, "", "", {"ratings": 3, "seed": None})
    assert len(again.votes()) == 2
    again.close()
    other = tmp_path / "guidelines.md"
    other.write_text("Else.")
    for given, what in (
        ({"ratings": 5}, "ratings"),
        ({"seed": 1, "check_every": 2}, "seed and check every"),
        ({"guidelines": str(other)}, "guidelines"),
    ):
        with pytest.raises(ValueError, match=f"was started with other {what}; name another file, or leave out these"):
            items.open_store(path, "", "", given)


def test_what_was_not_given_again_is_as_the_file_has_it(open_store, write_answers, tmp_path):
    open_store(12, ratings=5, seed=3, check_every=2)
    again = items.open_store(str(tmp_path / "ratings.db"), *map(str, write_answers(12)), {"ratings": 5})
    assert (again.settings()["seed"], again.settings()["check_every"]) == (3, 2)
    again.close()


def test_what_cannot_be_rated_is_said(tmp_path, write_answers):
    a, b = map(str, write_answers(3))
    settings = {"ratings": 3, "check_every": 10, "seed": 0, "guidelines": ""}
    text = tmp_path / "text.txt"
    text.write_text("This is no database. " * 100)
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "instruction": "else?", "output": "o"}\n')
    for db, files, changes, error, message in (
        ("new.db", ("", ""), {}, FileNotFoundError, "new.db: no such file; give --answers_a and --answers_b"),
        ("new.db", (a, ""), {}, ValueError, "--answers_a and --answers_b: give both"),
        ("new.db", (a, str(other)), {}, ValueError, "share no prompt"),
        ("new.db", (a, b), {"ratings": 0}, ValueError, "--ratings=0: must be at least 1"),
        ("new.db", (a, b), {"check_every": 1}, ValueError, "--check_every=1: must be 0"),
        ("text.txt", (a, b), {}, ValueError, "text.txt: cannot be used (file is not a database)"),
    ):
        with pytest.raises(error) as caught:
            items.open_store(str(tmp_path / db), *files, {**settings, **changes})
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new.db").exists()
