import csv
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from etils import epath

from imitation_jax.evaluation import runner, statistics
from imitation_jax.evaluation.results import write_lines, write_result
from imitation_jax.reporting.page import write_report

EVIL = "<script>alert('x')</script> & $\\frac{1}{2}$"


class Page(HTMLParser):
    """Collects tags, links and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def workdir(tmp_path, style_config):
    """Results as evaluate writes them: style for three models, a quiz for two, a curve with a cut last line."""
    prompts = [f"prompt {k} {EVIL}" for k in range(12)]
    outputs = {
        "base": ["plain words"] * 12,
        "student": ["", *["- a\n- b\n\nOverall, words."] * 11],
        "teacher": ["- a\n- b\n\nOverall, more words."] * 12,
    }
    answers = {}
    for name, texts in outputs.items():
        rows = [
            {"instruction": prompts[k], "output": f"{text} {'word ' * k}{EVIL}" if text else "", "generator": name}
            for k, text in enumerate(texts)
        ]
        answers[name] = tmp_path / f"{name}.jsonl"
        write_lines(epath.Path(answers[name]), rows)
    for name in outputs:
        runner.evaluate(style_config(answers[name], answers["teacher"], name), [], str(tmp_path), tmp_path)
    for name, hits in (("base", 30), ("student", 29)):
        correct = [k < hits for k in range(60)]
        result = {
            "task": "facts", "model": name, "role": name, "n": 60, "chance": 0.25, "seconds": 1.0,
            "metrics": {"accuracy": statistics.proportion(correct)}, "settings": {"data": EVIL},
            "versions": {"jax": "9"},
        }  # fmt: skip
        write_result(epath.Path(tmp_path) / "eval" / name / "facts.json", result)
    steps = "".join(json.dumps({"step": k, "loss": 3.0 / k, "validation_loss": 3.1}) + "\n" for k in range(1, 60))
    (tmp_path / "metrics.jsonl").write_text(steps + '{"step": 60, "lo', encoding="utf-8")
    return tmp_path


@pytest.fixture
def style_config():
    from ml_collections import ConfigDict

    def make(answers, reference, name):
        return ConfigDict(
            {
                "task": "style",
                "name": name,
                "role": name,
                "answers": str(answers),
                "reference": str(reference),
                "limit": 0,
            }
        )

    return make


def test_the_page_is_whole_and_alone(workdir):
    path, text = write_report(str(workdir))
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("Fact quiz")] == [["Fact", "quiz,"]] * 2
    text = open(path, encoding="utf-8").read()
    page = Page(text)
    assert "script" not in page.tags
    assert EVIL in "".join(page.words)  # shown as it is, not run
    assert page.tags.count("svg") == 4 + 1 + 1  # style rows, the quiz, the curve
    # nothing is fetched: only places in the page itself, and the table beside it
    assert {link for link in page.links if not link.startswith("#")} == {"table.csv", "tables.tex"}
    words = " ".join(" ".join(page.words).split())
    assert "empty answer" in words and "missing" in words
    assert "50.0 ± 6.5" in words.replace("  ", " ")
    assert "paper's finding" in words
    for name in ("style", "knowledge", "loss"):
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (workdir / "report" / f"{name}.svg").read_text()


def test_the_table_has_every_cell(workdir):
    write_report(str(workdir))
    rows = list(csv.DictReader(open(workdir / "report/table.csv", encoding="utf-8")))
    cells = {(row["task"], row["metric"], row["model"]): row for row in rows}
    assert float(cells["facts", "accuracy", "base"]["value"]) == 0.5
    assert float(cells["facts", "accuracy", "base"]["stderr"]) == pytest.approx((0.25 / 59) ** 0.5)
    assert cells["facts", "accuracy", "teacher"]["value"] == ""
    assert float(cells["style", "list_match", "teacher"]["value"]) == 1.0
    assert cells["style", "list_match", "base"]["n"] == "12"
    assert [row["model"] for row in rows[:3]] == ["base", "student", "teacher"]


def test_a_report_from_little(tmp_path):
    result = {"task": "facts", "model": "m", "metrics": {"accuracy": {"value": None, "stderr": None, "n": 0}}}
    write_result(epath.Path(tmp_path) / "eval/m/facts.json", result)
    for settings in ("0a", "1b"):
        (tmp_path / f"eval/m/mmlu.samples.jsonl.{settings}.partial").write_text("{}\n")
    words = " ".join(Page(open(write_report(str(tmp_path))[0], encoding="utf-8").read()).words)
    assert "No model is marked as base" in words
    assert "No training curve" in words
    assert words.count("m/mmlu") == 1


def test_several_bases_judge_nothing(workdir):
    folder = workdir / "eval" / "other"
    folder.mkdir()
    result = json.loads((workdir / "eval/base/facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps(result | {"model": "other"}))
    path, text = write_report(str(workdir))
    said = "2 models are base models (base, other), so no student is judged"
    assert said in text and "paper's finding" not in text
    assert said in " ".join(Page(open(path, encoding="utf-8").read()).words)


def test_without_matplotlib_one_line_tells_what_to_install(workdir):
    code = "import runpy, sys; sys.modules['matplotlib'] = None; "
    code += "runpy.run_module('imitation_jax.report', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, f"--workdir={workdir}"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the figures need matplotlib; pip install 'imitation_jax[demo]'\n"


def test_the_same_files_give_the_same_page(workdir):
    first = open(write_report(str(workdir))[0], "rb").read()
    assert open(write_report(str(workdir))[0], "rb").read() == first
