import json

import pytest

from imitation_jax.evaluation.tasks import tldr

PASSAGE = "The cat sat on the mat. It was a warm day."


def test_the_sets_formats(tmp_path, write, config_of):
    rows = [
        {"document": PASSAGE, "summary": "Cat sat.", "id": "x7"},
        {"article": PASSAGE, "highlights": "Cat sat."},
        {"content": PASSAGE, "summary": "Cat sat.", "title": "cats"},
        {"prompt": f"{PASSAGE}\n\nTL;DR:\n", "completion": " Cat sat.<|endoftext|>"},
        {"prompt": f"Summarize: {PASSAGE}\n", "completion": "Cat sat.<|endoftext|>"},
        {"prompt": f"{PASSAGE}\n\nTL;DR:", "label": " Cat sat."},
    ]
    items = tldr.read(config_of("tldr", data=write(tmp_path / "data.jsonl", *rows)))
    assert [item["id"] for item in items] == ["x7", "1", "2", "3", "4", "5"]
    assert {(item["passage"], item["gold"]) for item in items} == {(PASSAGE, "Cat sat.")}
    assert tldr.text(items[0]) == PASSAGE


@pytest.mark.parametrize("name", ["cnn_dailymail_3_0_0_tldr_summary", "xsum_DOC_tldr", "xsum_summarize_DOC"])
def test_real_rows_come_out_bare(lent, config_of, name):
    path = lent(f"summarisation/{name}.jsonl")
    items = tldr.read(config_of("tldr", data=str(path)))
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        assert not item["passage"].startswith(("Summarize:", "Could you please", "Article:"))
        assert not item["passage"].endswith("TL;DR:") and not item["gold"].endswith("<|endoftext|>")
        assert len(row["prompt"]) - 115 < len(item["passage"]) < len(row["prompt"])
        assert item["passage"] in row["prompt"] and item["gold"] in row["completion"]


def test_the_two_wordings_of_one_set_hold_the_same_passages(lent, config_of):
    plain, instructed = (
        tldr.read(config_of("tldr", data=str(lent(f"summarisation/xsum_{name}.jsonl"))))
        for name in ("DOC_tldr", "summarize_DOC")
    )
    assert plain == instructed


def test_prompts_and_scores(tmp_path, write, config_of, scripted, answer_all):
    data = write(
        tmp_path / "data.jsonl", {"passage": PASSAGE, "summary": "A cat sat down"}, {"passage": "x y", "summary": "z"}
    )
    engine = scripted(writes={"cat": " The cats sat.\n\nNext"})
    rows, found = answer_all(tldr, engine, config_of("tldr", data=data))
    assert engine.asked[0] == f"{PASSAGE}\n\nTL;DR:"
    assert [row["prediction"] for row in rows] == ["The cats sat.", ""]
    # stemmed: [the cat sat] and [a cat sat down] share two words of three and of four, one pair of two and of three
    assert rows[0]["rouge1"] == rows[0]["rougeL"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert rows[0]["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert found["metrics"]["rougeL"]["value"] == pytest.approx(rows[0]["rougeL"] / 2)
    assert found["metrics"]["words"]["value"] == 1.5
    assert found["metrics"]["words_reference"]["value"] == 2.5
    assert found["counts"]["answers_empty"] == 1
    assert all(row["correct"] is None for row in rows)


def test_chat(tmp_path, write, config_of, scripted, answer_all):
    data = write(tmp_path / "data.jsonl", {"passage": PASSAGE, "summary": "A cat sat."})
    engine = scripted(writes={"cat": "First.\n\nSecond."})
    rows, _ = answer_all(tldr, engine, config_of("tldr", "chat", data=data))
    assert rows[0]["prediction"] == "First.\n\nSecond."
    assert f"of this text:\n\n{PASSAGE}<|im_end|>" in engine.asked[0]


@pytest.mark.parametrize("variant", [None, "chat"])
def test_a_long_passage_loses_its_end(tmp_path, write, config_of, scripted, answer_all, variant):
    passage = " ".join(f"Sentence number {k} is here." for k in range(200))
    engine = scripted(context=300)
    data = write(
        tmp_path / "data.jsonl", {"passage": passage, "summary": "Many."}, {"passage": PASSAGE, "summary": "Cat."}
    )
    rows, found = answer_all(tldr, engine, config_of("tldr", variant, data=data))
    assert found["counts"]["passages_cut"] == 1
    assert 300 - 128 - 2 <= len(engine.requests[0].prompt) <= 300 - 128
    before, after = config_of("tldr", variant).prompt.split("{passage}")
    assert rows[0]["prompt"].startswith(before + passage[:50])
    assert rows[0]["prompt"].endswith(after)
    assert rows[0]["cut"] + len(rows[0]["prompt"]) == len(before + passage + after)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"summary": "x"}, "passage or document"),
        ({"passage": "x"}, "summary or highlights"),
        ({"passage": "x", "summary": " "}, "'summary'"),
        ({"prompt": "TL;DR:", "completion": "x"}, "nothing but"),
        ({"prompt": "x", "completion": "<|endoftext|>"}, "nothing but"),
    ],
)
def test_bad_rows_are_named(tmp_path, write, config_of, row, reason):
    with pytest.raises(ValueError, match=f"data.jsonl:1: .*{reason}"):
        tldr.read(config_of("tldr", data=write(tmp_path / "data.jsonl", row)))
    with pytest.raises(ValueError, match="config.prompt='Sum up'"):
        tldr.read(config_of("tldr", data=write(tmp_path / "data.jsonl", row), prompt="Sum up"))
