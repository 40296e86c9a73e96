"""A small study: configs that name files of a test's own folder, and result files as `evaluate` writes them."""

import json
from pathlib import Path

import pytest

from imitation_jax.studies import config as studies
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.layout import lay_out
from imitation_jax.studies.status import StudyStatus


@pytest.fixture
def make_config(tmp_path):
    """`make_config()` is a study of two budgets of a data set, on facts, answers and their style."""

    def make():
        config = studies.get_config("small")
        config.public = ""
        config.bases.tiny = studies.base("hf:tiny", "Tiny", 1000, "tiny.py")
        config.builds.talk = studies.build(
            "Talk", "prepare", "configs/data/sharegpt.py", input=str(tmp_path / "talk.jsonl")
        )
        config.schedules.flat = {"optimizer": {"warmup_steps": 7}}
        config.grids.main = studies.grid("tiny", "talk", "10_000,20_000", "flat")
        config.evaluations.facts = {"data": "quiz.jsonl", "limit": 100}
        return config

    return make


@pytest.fixture
def write_result():
    """`write_result(workdir, "base", "facts", settings)` writes such a result file."""

    def write(workdir: str, name: str, task: str, settings: dict, n: int = 10, seconds: float = 5.0) -> None:
        path = Path(workdir) / "eval" / name / f"{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics = {"accuracy": {"value": 0.25, "stderr": 0.1, "n": n}}
        result = {"task": task, "model": name, "role": "", "n": n, "metrics": metrics}
        result["settings"] = {"task": task} | settings
        result |= {"contamination": {"dataset": f"{workdir}/data/talk"}}
        path.write_text(json.dumps(result | {"seconds": seconds, "tokens": 50}))

    return write


@pytest.fixture
def state(make_config, tmp_path):
    """`state(job, ...)` with these jobs in the place of a study's own, whose cells are done."""

    def make(*todo: Job) -> StudyStatus:
        layout = lay_out(make_config(), str(tmp_path), 1)
        done = [Job(cell.name, "cell", (), lambda: True) for cell in layout.cells]
        return StudyStatus(layout, [*todo, *done])

    return make
