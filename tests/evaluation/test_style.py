import pytest

from imitation_jax.evaluation.tasks import style

# shared/data's known facts: share of answers with a list on alpaca_eval's 805 prompts
LIST_SHARES = {"gpt-3.5-turbo-0301": 0.371, "vicuna-13b": 0.388, "alpaca-7b": 0.092, "text_davinci_003": 0.128}


@pytest.mark.parametrize(
    "text", ["1. one", "Here:\n- a\n- b", "  * a", "Steps:\n\n10) ten", "a\n+ b", "- ", "1.\tone", "x\n1. **Bold**"]
)
def test_lists(text):
    assert style.has_list(text)


@pytest.mark.parametrize(
    "text", ["", "one - two", "1.5 litres", "*emphasis* here", "-5 degrees", "    - code", "**Bold**"]
)
def test_no_lists(text):
    assert not style.has_list(text)


def test_summaries():
    assert style.has_summary("Some text.\n\nOverall, it is good.")
    assert style.has_summary("1. a\n2. b\n \nIn conclusion: yes.")
    assert style.has_summary("Text.\n\n**In summary**, yes.")
    assert not style.has_summary("Overall, it is good.")  # nothing before it to sum up
    assert not style.has_summary("Text.\n\nOveralls are clothes.")
    assert not style.has_summary("Text.\n\nIn summary:\n- a")  # ends with a list
    assert not style.has_summary("Overall, good.\n\nThe end of it is near.")
    assert not style.has_summary("")


def test_unigram_intersection_counts_words_as_often_as_they_come():
    assert style.unigram_intersection("A b, b!", "a B") == pytest.approx(2 * 2 / 5)
    assert style.unigram_intersection("same words", "Words same") == 1.0
    assert style.unigram_intersection("", "words") == 0.0
    assert style.unigram_intersection("straße 12", "STRASSE 12") == pytest.approx(0.5)


def test_rows_of_the_table(write, tmp_path, config_of, answer_all):
    def row(key, output):
        return {"id": key, "instruction": f"prompt {key}", "output": output, "generator": "x"}

    ours = [row("a", "- list"), row("b", "no list"), row("c", "- list"), row("d", ""), row("e", "x"), row("only", "o")]
    theirs = [
        row("a", "1. one\n\nOverall, one."),
        row("b", "- two"),
        row("c", "none here"),
        row("d", "- four"),
        row("e", ""),
    ]
    theirs = [{**reference, "generator": "teacher"} for reference in theirs] + [row("missing", "m")]
    config = config_of(
        "style", answers=write(tmp_path / "a.jsonl", ours), reference=write(tmp_path / "b.jsonl", theirs)
    )
    rows, found = answer_all(style, None, config)
    assert found["metrics"]["list_match"]["value"] == pytest.approx(1 / 3)  # a of a, b, d
    assert found["metrics"]["list_match"]["n"] == 3
    assert found["metrics"]["summary_match"]["value"] == 0.0
    assert found["metrics"]["list_share"]["n"] == 4  # e has no reference to compare with
    assert found["counts"] == {
        "references_repeated": 0,
        "answers_without_reference": 1,
        "references_without_answer": 1,
        "answers_empty": 1,
        "references_empty": 1,
    }
    assert found["reference"] == "teacher"
    assert len(rows) == 5


def test_bad_files_are_named(write, tmp_path, config_of):
    good = write(tmp_path / "good.jsonl", [{"id": 1, "output": "x"}])
    for row, reason in (({"id": 1}, "'output'"), ({"output": "x"}, "neither"), ({"id": 1, "messages": "x"}, "list")):
        bad = write(tmp_path / "bad.jsonl", [row])
        with pytest.raises(ValueError, match=f"bad.jsonl:1: .*{reason}"):
            style.read(config_of("style", answers=bad, reference=good))
    with pytest.raises(ValueError, match="share no prompt"):
        other = write(tmp_path / "other.jsonl", [{"id": 2, "output": "x"}])
        style.read(config_of("style", answers=other, reference=good))


def test_real_models(lent, config_of, answer_all):
    """The table on alpaca_eval's answers, ChatGPT-0301 as the teacher: Vicuna comes close, Alpaca does not."""
    folder = lent("alpaca_eval/model_outputs")
    teacher = f"{folder}/gpt-3.5-turbo-0301.json"
    found = {}
    for name in ("gpt-3.5-turbo-0613", "vicuna-13b", "alpaca-7b", "text_davinci_003"):
        config = config_of("style", answers=f"{folder}/{name}.json", reference=teacher)
        found[name] = answer_all(style, None, config)[1]
    for name, share in LIST_SHARES.items():
        if name == "gpt-3.5-turbo-0301":
            measured = found["vicuna-13b"]["metrics"]["list_share_reference"]
        else:
            measured = found[name]["metrics"]["list_share"]
        assert measured["value"] == pytest.approx(share, abs=0.005)
        assert measured["n"] == 805
    for metric in ("list_match", "summary_match", "unigram_intersection", "length_correlation"):
        ceiling, vicuna, alpaca = (
            found[name]["metrics"][metric]["value"] for name in ("gpt-3.5-turbo-0613", "vicuna-13b", "alpaca-7b")
        )
        assert ceiling > vicuna > alpaca
    assert found["gpt-3.5-turbo-0613"]["metrics"]["unigram_intersection"]["value"] == pytest.approx(0.497, abs=0.001)
    assert found["text_davinci_003"]["counts"]["answers_empty"] == 2
