
import pytest

from imitation_jax.data import answer_files


def test_matching_by_instruction_where_ids_are_missing_or_strange(write, tmp_path):
    with_ids = [{"id": "x0", "instruction": "p", "output": "1"}, {"id": "x1", "instruction": "q", "output": "2"}]
    without = [{"instruction": "q", "output": "3"}, {"instruction": "p ", "output": "4"}]
    ours, theirs = (
        answer_files.read_answers(write(tmp_path / name, rows)) for name, rows in (("a", with_ids), ("b", without))
    )
    pairs, by, _ = answer_files.match(ours, theirs)
    assert by == "instruction"
    assert [(a["output"], b["output"]) for a, b in pairs] == [("1", "4"), ("2", "3")]


def test_ids_that_agree_where_instructions_do_not_are_no_match(write, tmp_path):
    ours = answer_files.read_answers(write(tmp_path / "a", [{"id": 1, "instruction": "p", "output": "1"}]))
    theirs = answer_files.read_answers(write(tmp_path / "b", [{"id": 1, "instruction": "other", "output": "2"}]))
    pairs, by, counts = answer_files.match(ours, theirs)
    assert (pairs, by, counts["instructions_differ"]) == ([], "id", 1)


def test_repeated_answers_count_once(write, tmp_path):
    row = {"id": 1, "instruction": "p", "output": "1"}
    rows = answer_files.read_answers(write(tmp_path / "a", [row, row]))
    pairs, _, counts = answer_files.match(rows, rows)
    assert len(pairs) == 1
    assert (counts["answers_repeated"], counts["references_repeated"]) == (1, 1)


def test_dialogue_and_vicuna_files_are_answers_too(write, tmp_path, lent):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    [row] = answer_files.read_answers(write(tmp_path / "d.jsonl", [{"id": "d", "messages": turns}]))
    assert row == {"id": "d", "instruction": "Why?", "output": "Because.", "generator": None}
    rows = answer_files.read_answers(str(lent("vicuna_eval_2023/answer/answer_vicuna-13b.jsonl")))
    assert len(rows) == 80
    assert (rows[0]["id"], rows[0]["instruction"]) == ("1", None)


def test_pairs_have_ids_of_their_own_where_a_file_has_none(write, tmp_path):
    ours = answer_files.read_answers(write(tmp_path / "a", [{"instruction": "p", "output": "1"}]))
    theirs = answer_files.read_answers(write(tmp_path / "b", [{"id": 7, "instruction": "p", "output": "2"}]))
    [pair], by, _ = answer_files.pairs(ours, theirs, ("a", "b"))
    assert by == "instruction" and pair == {"id": "0", "instruction": "p", "output": "1", "reference": "2"}
    [pair], _, _ = answer_files.pairs(theirs, ours, ("b", "a"))
    assert pair["id"] == "7"


def test_files_without_a_pair_are_named(write, tmp_path):
    ours = answer_files.read_answers(write(tmp_path / "a", [{"instruction": "p", "output": "1"}]))
    theirs = answer_files.read_answers(write(tmp_path / "b", [{"instruction": "q", "output": "1"}]))
    with pytest.raises(ValueError, match="a.jsonl and b.jsonl share no prompt"):
        answer_files.pairs(ours, theirs, ("a.jsonl", "b.jsonl"))


def test_alpacas_input_is_part_of_the_instruction(write, tmp_path):
    row = {"instruction": "Say it in French.", "input": "Good day", "output": "Bonjour"}
    [read] = answer_files.read_answers(write(tmp_path / "a", [row]))
    assert read["instruction"] == "Say it in French.\n\nGood day"


def test_messages_that_hold_more_than_text_are_named(write, tmp_path):
    turns = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, {"role": "assistant", "content": "So."}]
    with pytest.raises(ValueError, match="a:1: the content of a message must be a text"):
        answer_files.read_answers(write(tmp_path / "a", [{"messages": turns}]))
