import csv
import json
import xml.etree.ElementTree as ElementTree

import pytest
from study_grid import grid
from test_page import EVIL, Page

from imitation_jax.reporting.page import write_report

MISSING = "small-chat-20000000-paper-0"


def page(root):
    """(tags, visible text in one line, what the terminal shows)."""
    path, text = write_report(str(root))
    parsed = Page(open(path, encoding="utf-8").read())
    assert {link for link in parsed.links if not link.startswith("#")} == {"table.csv", "tables.tex"}
    return parsed.tags, " ".join(" ".join(parsed.words).split()), text


def rows(root):
    return list(csv.DictReader(open(root / "report/table.csv", encoding="utf-8")))


def test_a_whole_grid_has_every_table_and_figure(tmp_path):
    grid(tmp_path, local=("quiz",))
    _, words, text = page(tmp_path)
    for name in ("figure1", "figure3", "figure4", "figure5", "style", "loss"):
        assert (tmp_path / f"report/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(tmp_path / f"report/{name}.svg").getroot().tag.endswith("svg")
    for said in (
        "12 of 12 students done",
        "Natural Questions, exact match, %, by imitation data",
        "Style by data amount: Small 1B, chat",
        "The paper's Table 1", "LLaMA 13B 20 15 27", "The paper's Table 2", "kWh", "What the students were trained on",
        "Natural Questions, exact match by base model, %", "Against ChatGPT",
    ):  # fmt: skip
        assert said in words, said
    assert "nothing here measured it" not in words
    assert "Natural Questions, exact match, %, by imitation data" in text
    numbers = {(row["task"], row["metric"], row["model"]): row for row in rows(tmp_path)}
    row = numbers["nq", "exact_match", "large-quiz-20000000-paper-0"]
    assert (row["base"], row["data"], row["tokens"], row["status"]) == ("large", "quiz", "20000000", "done")
    assert float(row["low"]) < float(row["value"]) < float(row["high"])


def test_one_cell_is_a_report_and_always_the_same(tmp_path):
    grid(tmp_path, bases=(("small", "Small 1B", 1e9),), budgets=(300_000,), tasks=("style", "mmlu"))
    tags, words, _ = page(tmp_path)
    assert "1 of 1 students done" in words
    assert "that takes two base models" in words
    assert words.count("missing: nothing here measured it") == 3  # figures 1, 3 and 5
    assert "No style measure was taken alike on two data amounts" in words
    assert "small-chat-300000-paper-0" in words and "svg" in tags
    first = (tmp_path / "report/index.html").read_bytes()
    page(tmp_path)
    assert (tmp_path / "report/index.html").read_bytes() == first


def test_missing_cells_are_shown_as_missing(tmp_path):
    grid(tmp_path, bases=(("small", "Small 1B", 1e9),), missing=(MISSING,), tasks=("style", "nq"))
    _, words, _ = page(tmp_path)
    assert f"1 of 3 cells are not done ({MISSING})" in words
    assert "failed out of memory" in words
    line = next(part for part in words.split("Style by data amount: ") if part.startswith("chat"))
    assert "missing" in line.split("Summary paragraph")[0]
    empty = [row for row in rows(tmp_path) if row["model"] == MISSING]
    assert {row["value"] for row in empty} == {""} and {row["status"] for row in empty} == {"failed"}
    assert r"\textit{missing}" in (tmp_path / "report/tables.tex").read_text()


def test_a_study_that_has_only_begun(tmp_path):
    grid(tmp_path)
    for folder in (tmp_path / "eval").iterdir():
        for file in folder.iterdir():
            file.unlink()
    _, words, _ = page(tmp_path)
    assert words.count("missing: nothing here measured it") == 5
    assert "Cannot be said yet" in words


def test_questions_kept_out_of_the_training_are_counted(tmp_path):
    grid(tmp_path, bases=(("small", "Small 1B", 1e9),), budgets=(300_000,), local=("quiz",), tasks=("nq",))
    (tmp_path / "data" / "pairs").mkdir()
    (tmp_path / "data" / "pairs" / "selection.json").write_text('{"rows": 1800, "in_test": 5, "near_test": 32}')
    _, words, _ = page(tmp_path)
    assert "Of 1,800 questions for the local task 5 are asked in the test and 32 differ little from one" in words


def test_names_may_hold_html(tmp_path):
    grid(tmp_path, budgets=(300_000,), tasks=("style", "nq", "judge"), evil=EVIL)
    tags, words, _ = page(tmp_path)
    assert "script" not in tags
    # everything named in study.json and in the files is shown as it is
    for said in (f"grid {EVIL}", f"Large 13B{EVIL}", f"chat{EVIL}", f"How do I begin task 0? {EVIL}", f"file {EVIL}"):
        assert " ".join(said.split()) in words, said
    for file in (tmp_path / "report").glob("*.svg"):
        assert not [e for e in ElementTree.parse(file).iter() if e.tag.endswith("script")]
    tex = (tmp_path / "report/tables.tex").read_text()
    assert r"\textless{}script\textgreater{}" in tex and r"\& \$\textbackslash{}frac\{1\}\{2\}\$" in tex


def test_a_page_to_pass_on_has_no_answers_and_no_folders(tmp_path):
    cell = "small-chat-300000-paper-0"
    grid(tmp_path, bases=(("small", "Small 1B", 1e9),), budgets=(300_000,), tasks=("style",), missing=(cell,))
    study = tmp_path / "study.json"
    study.write_text(study.read_text().replace("out of memory ", "exit 1; see /home/me/logs/x.log"))
    path = tmp_path / "eval" / "small" / "style.json"
    content = json.loads(path.read_text())
    content["settings"] |= {
        "data": "/home/me you/quiz.jsonl",
        "model": "gguf:/home/me/a.gguf",
        "url": "https://host/v1/x",
    }
    path.write_text(json.dumps(content | {"data": {"/home/me/mmlu/dev.csv": "0a1b", "configs/eval/x.py": "2c"}}))
    _, words, _ = page(tmp_path)
    assert "How do I begin task 0?" in words and "/home/me you/quiz.jsonl" in words
    write_report(str(tmp_path), shareable=True)
    words = " ".join(Page((tmp_path / "report" / "index.html").read_text()).words)
    assert "How do I begin task" not in words and "/home/me" not in words
    for said in (
        "exit 1; see x.log",
        "quiz.jsonl",
        "gguf:a.gguf",
        "https://host/v1/x",
        "dev.csv",
        "configs/eval/x.py",
        "for passing on",
    ):
        assert said in words, said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "study.json: not what study writes"),
        ('{"cells": [{"name": "a"}], "bases": []}', "study.json: not what study writes"),
        (json.dumps({"cells": [{"name": "a", "base": "x", "data": "d"}], "bases": []}), "base that is not listed: x"),
    ],
)
def test_a_damaged_study_is_one_line(tmp_path, text, said):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        write_report(str(tmp_path))
