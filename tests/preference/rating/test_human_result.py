"""What votes become: majorities, shares, agreement, people beside the judge; and Mechanical Turk's files."""

import csv
import json
import re

import pytest
from etils import epath

from imitation_jax.evaluation import statistics
from imitation_jax.preference.rating import human_result, mturk

VOTES = {  # item: three votes on the student's answer
    "i0": (1, 1, -1),
    "i1": (0, 0, 0),
    "i2": (-1, -1, -1),
    "i3": (1, 0, -1),  # no majority
    "i4": (-1, -1, 0),
    "i5": (-1, 1, -1),
}


def cast(store, votes) -> None:
    """Adds votes by item, each by another rater and later than the one before it."""
    rows = [
        {"task": f"{item} {rater}", "item": item, "rater": rater, "vote": vote}
        for item, on_it in votes.items()
        for rater, vote in zip(("ann", "bob", "cem", "dee"), on_it, strict=False)
    ]
    store.add([{**row, "a_first": True, "shown": 0.0, "voted": float(second)} for second, row in enumerate(rows)])


@pytest.fixture
def voted(open_store):
    """A store with `VOTES`, and of a seventh item one vote."""
    store = open_store(7)
    cast(store, {**VOTES, "i6": (1,)})
    return store


def result_of(store, tmp_path, judge="") -> tuple[dict, list[dict]]:
    path, _ = human_result.write(store, str(tmp_path), judge)
    assert path == str(tmp_path / "eval" / "student" / "human.json")
    rows = (tmp_path / "eval" / "student" / "human.samples.jsonl").read_text().splitlines()
    return json.loads((tmp_path / "eval" / "student" / "human.json").read_text()), [json.loads(row) for row in rows]


def judge_file(path, samples, preferences) -> str:
    rows = [{**sample, "preference": preferences.get(sample["id"])} for sample in samples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_figures_counted_by_hand(voted, tmp_path):
    found, samples = result_of(voted, tmp_path)
    metrics = found["metrics"]
    assert found["n"] == 6 and found["settings"]["opponent"] == "teacher"
    majorities = [sample["majority"] for sample in samples]
    assert majorities == ["better", "equal", "worse", "equal", "worse", "worse", "better"]
    for name, share in (("better", 1 / 6), ("equal", 2 / 6), ("worse", 3 / 6), ("equal_or_better", 3 / 6)):
        assert metrics[name]["value"] == pytest.approx(share)
    assert metrics["equal_or_better"]["sd"] == pytest.approx(0.3**0.5)
    assert statistics.interval(metrics["equal_or_better"]) == pytest.approx((0.188, 0.812), abs=1e-3)
    assert metrics["win_rate"]["value"] == pytest.approx(1 / 3)
    assert metrics["votes_equal_or_better"]["value"] == pytest.approx((2 + 3 + 0 + 2 + 1 + 1) / 18)
    assert found["counts"]["votes"] == 19 and found["counts"]["raters"] == 3
    assert found["counts"]["items_without_majority"] == found["counts"]["items_without_all_ratings"] == 1
    assert {key: samples[0][key] for key in ("prompt", "prediction", "gold", "correct")} == {
        "prompt": "Instruction 0?",
        "prediction": "answer 0 of the student",
        "gold": "answer 0 of the teacher",
        "correct": None,
    }


def test_of_more_votes_than_an_item_needs_the_first_count(open_store, tmp_path):
    store = open_store(1)
    cast(store, {"i0": (1, 1, -1, -1)})
    found, samples = result_of(store, tmp_path)
    assert samples[0]["votes"] == [1, 1, -1] and found["metrics"]["better"]["hits"] == 1
    assert found["counts"]["votes"] == 3 and found["counts"]["votes_beyond_all_ratings_left_out"] == 1


def test_without_majority_is_where_votes_are_level(open_store, tmp_path):
    store = open_store(2, ratings=4)
    cast(store, {"i0": (1, 1, -1, 0), "i1": (1, 1, -1, -1)})
    found, samples = result_of(store, tmp_path)
    assert [sample["majority"] for sample in samples] == ["better", "equal"]
    assert found["counts"]["items_without_majority"] == 1


def test_raters_who_all_agree_leave_no_interval_without_width(open_store, tmp_path):
    store = open_store(4)
    cast(store, {f"i{number}": (-1, -1, -1) for number in range(4)})
    metrics = result_of(store, tmp_path)[0]["metrics"]
    for name in ("win_rate", "votes_equal_or_better", "rater_agreement"):
        low, high = statistics.interval(metrics[name])
        assert high - low > 0.3 and 0 <= low and high <= 1


def test_results_name_no_rater(voted, tmp_path):
    result_of(voted, tmp_path)
    for path in (tmp_path / "eval" / "student").iterdir():
        assert not re.search(r"\b(ann|bob|cem)\b", path.read_text())


def test_people_beside_the_judge(voted, tmp_path):
    found, samples = result_of(voted, tmp_path)
    assert "judge_agreement" not in found["metrics"]
    # The judge finds every answer a bit worse, but for one it gives no verdict.
    preferences = {f"i{number}": 0.25 for number in range(1, 6)}
    path = judge_file(tmp_path / "j.jsonl", samples, preferences)
    metrics = result_of(voted, tmp_path, path)[0]["metrics"]
    assert metrics["judge_agreement"]["hits"] == 3 and metrics["judge_agreement"]["n"] == 5
    # One in the workdir is found there.
    beside = tmp_path / "eval" / "student" / "judge.samples.jsonl"
    judge_file(beside, samples, preferences)
    found, _ = result_of(voted, tmp_path)
    assert found["metrics"]["judge_agreement"] == metrics["judge_agreement"]
    assert found["settings"]["judge"] == str(beside)
    # A judge of other answers is none of these: one that was named is refused, one that happens to be there left out.
    other = [{**sample, "output_a": "else"} for sample in samples]
    with pytest.raises(ValueError, match="no verdict there on a pair that people rated; name the judge"):
        result_of(voted, tmp_path, judge_file(tmp_path / "k.jsonl", other, preferences))
    judge_file(beside, other, preferences)
    found, _ = result_of(voted, tmp_path)
    assert "judge_agreement" not in found["metrics"] and found["settings"]["judge"] == ""


def test_a_workdir_in_a_bucket(voted, tmp_path, bucket):
    _, samples = result_of(voted, tmp_path)
    judge_file(tmp_path / "j.jsonl", samples, {"i2": 0})
    bucket.put(str(tmp_path / "j.jsonl"), "gs://bucket/eval/student/judge.samples.jsonl")
    path, _ = human_result.write(voted, "gs://bucket", "")
    assert json.loads(epath.Path(path).read_text())["metrics"]["judge_agreement"]["hits"] == 1


def test_votes_of_the_careless_are_counted_and_left_out(open_store, rate, tmp_path):
    store = open_store(30, check_every=5, ratings=1)
    rate(store, "careless", lambda item, expected: 1 if expected is None else (expected + 2) % 3 - 1)
    with pytest.raises(ValueError, match="the most is 0; 1 raters failed the attention checks and do not count"):
        result_of(store, tmp_path)
    rate(store, "ann", lambda item, expected: -1 if expected is None else expected)
    found, _ = result_of(store, tmp_path)
    assert found["metrics"]["worse"]["hits"] == 30 and found["counts"]["careless_raters"] == 1
    assert found["counts"]["votes_of_careless_raters_left_out"] > 0 and found["counts"]["checks_failed"] >= 2


def results_file(path, rows) -> str:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_a_batch_s_results_are_votes_or_counted(open_store, tmp_path):
    store = open_store(7)
    hits = tmp_path / "mturk"
    assert "7 rows in hits.csv (set 3 assignments)" in mturk.write(store, str(hits))
    items = {row["item"]: row for row in csv.DictReader((hits / "hits.csv").open())}

    def row(number: int, item: str, worker: str, **changes) -> dict:
        inputs = {f"Input.{name}": value for name, value in items[item].items()}
        given = {"AssignmentId": f"as{number}", "WorkerId": worker, "AssignmentStatus": "Submitted"}
        return {**inputs, **given, "Answer.order": "12", "Answer.vote": "first", **changes}

    rows = [
        row(0, "i0", "W0"),
        row(1, "i1", "W0", **{"Answer.order": "21", "Answer.vote": "equal"}),
        row(2, "i2", "W0", AssignmentStatus="Rejected"),
        row(3, "i3", "W0", **{"Answer.vote": ""}),
        row(4, "i4", "W0", **{"Answer.vote": "both"}),
        row(5, "i0", "W0"),  # the same rater again
        row(6, "i0", "W1", **{"Answer.vote": "second"}),
        row(7, "i2", "W1", AssignmentId=""),
        row(8, "i3", " "),
        row(0, "i4", "W1"),
    ]
    said = mturk.read_results(store, results_file(tmp_path / "results.csv", rows))
    for part in ("3 votes added", "1 rejected", "4 without a vote that can be read", "1 cast before by the same rater"):
        assert part in said
    assert said.endswith("1 under the id of another vote")
    a_is_first = items["i0"]["first_is"] == "a"
    found = {(vote.item, vote.rater): vote.vote for vote in store.votes()}
    assert found == {("i0", "W0"): 1 if a_is_first else -1, ("i1", "W0"): 0, ("i0", "W1"): -1 if a_is_first else 1}
    assert "0 votes added" in mturk.read_results(store, str(tmp_path / "results.csv"))

    # As a form of radio buttons comes back: a column for each, true or false.
    columns = {f"Answer.vote.{name}": "false" for name in ("first", "equal", "second")}
    radio = {key: value for key, value in row(7, "i5", "W2").items() if key != "Answer.vote"}
    rows = [{**radio, **columns, "Answer.vote.equal": "true"}, {**radio, **columns, "AssignmentId": "as8"}]
    said = mturk.read_results(store, results_file(tmp_path / "radio.csv", rows))
    assert "1 votes added, 1 without a vote" in said and ("i5", 0) in [(v.item, v.vote) for v in store.votes()]

    for content, message in (
        ([row(9, "i0", "W3") | {"Input.item": "x9"}], "no item 'x9' here"),
        ([{"a": "b"}], "no column 'AssignmentId'; give a batch's"),
    ):
        with pytest.raises(ValueError, match=message):
            mturk.read_results(store, results_file(tmp_path / "wrong.csv", content))


def test_what_mechanical_turk_would_not_take_is_written_otherwise_or_left_out(open_store, tmp_path):
    outputs = [("emoji \N{GRINNING FACE} costs $5 ${instruction}", "plain"), ("x" * 70_000, "long")]
    store = open_store(2, outputs=outputs)
    said = mturk.write(store, str(tmp_path / "mturk"))
    assert (
        "1 rows in hits.csv" in said and "1 pairs are longer than Mechanical Turk takes" in said and said.endswith("i1")
    )
    (row,) = csv.DictReader((tmp_path / "mturk" / "hits.csv").open(encoding="ascii"))
    assert "&#128512;" in row["first"] + row["second"] and "$" not in row["first"] + row["second"] + row["instruction"]
    layout = (tmp_path / "mturk" / "layout.html").read_text(encoding="ascii")
    assert set(re.findall(r"\$\{(\w+)\}", layout)) == {"instruction", "first", "second"}
