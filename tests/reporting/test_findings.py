import pytest
from etils import epath

from imitation_jax.evaluation.results import write_lines, write_result
from imitation_jax.reporting import changes, findings
from imitation_jax.reporting.model_results import ROWS, not_comparable, read_models

FACTS = next(row for row in ROWS if (row.task, row.metric) == ("facts", "accuracy"))


def model(root, name, style=(), facts=None, stderr=0.01, settings=None, samples=None):
    """A folder of results: `style` gives the four rows of the table, `facts` the quiz's accuracy."""
    folder = epath.Path(root) / "eval" / name
    tasks = {}
    if style:
        names = [row.metric for row in ROWS if row.task == "style"]
        tasks["style"] = dict(zip(names, style, strict=True))
    if facts is not None:
        tasks["facts"] = {"accuracy": facts}
    for task, values in tasks.items():
        metrics = {key: {"value": value, "stderr": stderr, "n": 100} for key, value in values.items()}
        result = {"task": task, "model": name, "role": name, "n": 100, "metrics": metrics, "settings": settings or {}}
        write_result(folder / f"{task}.json", result)
    if samples:
        write_lines(folder / "facts.samples.jsonl", samples)


def judge(root):
    base, student = read_models(epath.Path(root))
    assert (base.role, student.role) == ("base", "student")
    return findings.verdict(student, base)


LOW, HIGH = (0.2, 0.1, 0.3, 0.1), (0.8, 0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("before", "after", "facts", "stderr", "stands", "words"),
    [
        (LOW, HIGH, (0.50, 0.49), 0.005, "supported", "support the paper's finding: "),
        (LOW, HIGH, (0.50, 0.40), 0.01, "supported", "knowledge fell"),
        (LOW, HIGH, (0.50, 0.53), 0.02, "agrees", "A gain of up to 9 points is not excluded"),
        (LOW, HIGH, (0.50, 0.60), 0.01, "contradicted", "also gained knowledge"),
        (LOW, LOW, (0.50, 0.60), 0.01, "contradicted", "did not clearly take on the teacher's style but gained"),
        (LOW, LOW, (0.50, 0.50), 0.01, "contradicted", "no imitation to speak of"),
        (LOW, LOW, (0.50, 0.50), 0.10, "open", "no style measure moved beyond error, and a clear rise is not excluded"),
        (HIGH, LOW, (0.50, 0.50), 0.01, "contradicted", "moved away"),
        (LOW, (0.8, 0.1, 0.3, 0.1), (0.50, 0.50), 0.01, "mixed", "1 of 4 style measures rose"),
        (LOW, (0.8, 0.5, 0.2, 0.6), (0.50, 0.50), 0.01, "mixed", "3 of 4 style measures rose beyond error and 1 fell"),
    ],
)
def test_verdicts_both_ways(tmp_path, before, after, facts, stderr, stands, words):
    model(tmp_path, "base", before, facts[0], stderr)
    model(tmp_path, "student", after, facts[1], stderr)
    verdict = judge(tmp_path)
    assert verdict.stands == stands
    assert words in verdict.sentence


def test_what_was_not_measured_is_said(tmp_path):
    model(tmp_path, "base", LOW)
    model(tmp_path, "student", HIGH, 0.5)
    verdict = judge(tmp_path)
    assert verdict.stands == "open"
    assert "no knowledge row was measured alike" in verdict.sentence


def test_numbers_with_different_settings_are_not_compared(tmp_path):
    model(tmp_path, "base", LOW, 0.5, settings={"shots": 0, "model": "gguf:a"})
    model(tmp_path, "student", HIGH, 0.5, settings={"shots": 5, "model": "orbax:b"})
    verdict = judge(tmp_path)
    assert verdict.stands == "open"
    assert "Fact quiz: measured with different shots" in verdict.not_compared


@pytest.mark.parametrize(
    "task, key, left, right, differ",
    [
        ("facts", "memory_gib", 0.0, 2.0, []),
        ("facts", "mesh", "fsdp=-1", "data=4", []),
        ("facts", "template", "model", "plain", []),  # each model's own
        ("facts", "template_digest", "0a", "1b", []),
        ("facts", "compute_dtype", "float32", "bfloat16", ["compute_dtype"]),
        ("facts", "data", "here/quiz.jsonl", "there/quiz.jsonl", []),  # its digest decides
        ("facts", "data_digest", "0a", "1b", ["data_digest"]),
        ("style", "data_digest", "0a", "1b", []),  # of the models' answers
        ("style", "reference", "a.json", "b.json", ["reference"]),
    ],
)
def test_what_keeps_numbers_from_being_compared_is_what_the_task_declares(tmp_path, task, key, left, right, differ):
    model(tmp_path, "base", LOW, 0.5, settings={key: left})
    model(tmp_path, "student", HIGH, 0.5, settings={key: right})
    row = next(row for row in ROWS if row.task == task)
    assert not_comparable(row, *read_models(epath.Path(tmp_path))) == differ


def test_pairs_of_the_same_questions_narrow_the_error(tmp_path):
    # the student loses three of 100 questions and gains none
    before = [{"id": str(k), "correct": k < 50} for k in range(100)]
    after = [{"id": str(k), "correct": 3 <= k < 50} for k in range(100)]
    model(tmp_path, "base", LOW, 0.50, 0.05, samples=before)
    model(tmp_path, "student", HIGH, 0.47, 0.05, samples=after)
    base, student = read_models(epath.Path(tmp_path))
    paired = changes.change(FACTS, student, base)
    assert paired.paired and paired.value == pytest.approx(-0.03)
    assert paired.stderr == pytest.approx((0.03 * 0.97 / 99) ** 0.5)
    write_lines(student.folder / "facts.samples.jsonl", after[1:])
    base, student = read_models(epath.Path(tmp_path))
    unpaired = changes.change(FACTS, student, base)
    assert not unpaired.paired
    assert unpaired.stderr == pytest.approx(0.05 * 2**0.5)


def test_roles_are_guessed_where_nobody_told(tmp_path):
    def write(name, task, **more):
        result = {"task": task, "model": name, "metrics": {"accuracy": {"value": 0.5, "stderr": 0.1, "n": 9}}, **more}
        write_result(epath.Path(tmp_path) / "eval" / name / f"{task}.json", result)

    write("z-base", "facts", settings={"model": "hf:x"})
    write("run", "facts", settings={"model": "orbax:run"})
    write("run", "style")
    write("a-teacher", "style", reference="a-teacher")
    write("somebody", "style", reference="a-teacher")
    models = read_models(epath.Path(tmp_path))
    assert [(model.name, model.role) for model in models] == [
        ("z-base", "base"), ("run", "student"), ("somebody", ""), ("a-teacher", "teacher")
    ]  # fmt: skip


def test_nothing_to_report_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results there; run evaluate"):
        read_models(epath.Path(tmp_path))
    model(tmp_path, "base", LOW)
    (tmp_path / "eval/base/style.json").write_text("{")
    with pytest.raises(ValueError, match="style.json: not a result file"):
        read_models(epath.Path(tmp_path))
