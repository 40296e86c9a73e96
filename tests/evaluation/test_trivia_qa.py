import json

import pytest

from imitation_jax.evaluation.tasks import trivia_qa


def row(question, value, *aliases):
    """As Hugging Face's nocontext sets have it."""
    return {
        "question": question,
        "question_id": "tc_1",
        "question_source": "http://www.triviacountry.com/",
        "entity_pages": {"doc_source": [], "filename": [], "title": [], "wiki_context": []},
        "search_results": {"description": [], "title": [], "url": []},
        "answer": {
            "aliases": list(aliases),
            "normalized_aliases": [trivia_qa.official(alias) for alias in aliases],
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "normalized_value": trivia_qa.official(value),
            "type": "WikipediaEntity",
            "value": value,
        },
    }


@pytest.fixture
def files(write, tmp_path):
    data = [
        row("Which river runs through Vienna?", "Danube", "The Danube", "Danube River"),
        row("In heraldry, what is 'gules'", "Red", "Red (colour)", "Red"),
    ]
    pool = [row(f"What is number {k}?", str(k), f"No {k}", str(k)) for k in range(7)]
    paths = {}
    for key, rows in (("data", data), ("shots_data", pool)):
        paths[key] = str(tmp_path / f"{key}.jsonl")
        write(tmp_path / f"{key}.jsonl", rows)
    return paths


def test_prompts_and_scores(files, config_of, scripted, answer_all):
    engine = scripted(writes={"Vienna?": " the DANUBE-river\nQ: more", "gules'?": " Blue"})
    rows, found = answer_all(trivia_qa, engine, config_of("trivia_qa", **files, shots=2, shots_from="first"))
    shots = "Q: What is number 0?\nA: 0\nQ: What is number 1?\nA: 1\n"
    assert engine.asked == [
        f"Answer these questions:\n\n{shots}Q: Which river runs through Vienna?\nA:",
        f"Answer these questions:\n\n{shots}Q: In heraldry, what is 'gules'?\nA:",
    ]
    assert [row["correct"] for row in rows] == [True, False]
    assert [row["id"] for row in rows] == ["0", "1"]  # question_id may come twice
    assert found["metrics"]["exact_match"]["value"] == found["metrics"]["f1"]["value"] == 0.5
    assert trivia_qa.text(trivia_qa.read(config_of("trivia_qa", **files))[1]) == "In heraldry, what is 'gules'"


def test_lm_evals_variant(files, config_of, scripted, answer_all):
    """Prompts as lm-eval 0.4.13 made them of the same rows, seed 1234."""
    engine = scripted(writes={"Vienna??": " danube, of course"})
    rows, _ = answer_all(trivia_qa, engine, config_of("trivia_qa", "lm_eval", **files, shots=5))
    expected = []
    for shots, question in (((6, 3, 0, 4, 5), "Which river runs through Vienna?"),
                            ((5, 6, 0, 4, 1), "In heraldry, what is 'gules'")):  # fmt: skip
        examples = "".join(f"Question: What is number {k}??\nAnswer: No {k}\n\n" for k in shots)
        expected.append(f"{examples}Question: {question}?\nAnswer:")
    assert engine.asked == expected
    assert rows[0]["prediction"] == "danube"
    assert not rows[0]["correct"]  # "The Danube" keeps its article, and the value alone is no alias
    zero = config_of("trivia_qa", "lm_eval", data=files["data"])
    assert trivia_qa.read(zero)[0]["body"] == "Question: Which river runs through Vienna??\nAnswer:"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": ["a"]}, "'value'"),
        ({"question": "q", "answer": {"value": "<unk>", "aliases": []}}, "'aliases'"),
        ({"question": " ", "answer": {}}, "'question'"),
    ],
)
def test_bad_rows_are_named(tmp_path, config_of, row, reason):
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"bad.jsonl:1: .*{reason}"):
        trivia_qa.read(config_of("trivia_qa", data=str(tmp_path / "bad.jsonl"), shots=0))
