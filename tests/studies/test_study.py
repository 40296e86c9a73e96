"""The command: a whole small study, killed twice, and what it says before it starts."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

CONFIG = """
from imitation_jax.studies import config as studies

DEMO = "imitation_jax/data/demo"


def get_config():
    config = studies.get_config("tiny study")
    config.public = ""
    config.bases.tiny = studies.base("orbax:BASE", "Tiny", 1000, "TRAIN")
    config.builds.talk = studies.build(
        "Talk", "prepare", "configs/data/sharegpt.py", input="DATA", steps="exact_duplicates"
    )
    config.train = {"batch_size": 2, "epochs": 4, "checkpoint": {"every": 2, "keep": 1}}
    config.schedules.fixed = {"optimizer": {"warmup_steps": 4}}
    config.schedules.proportional = {"optimizer": {"warmup_fraction": 0.1}}
    config.grids.main = studies.grid("tiny", "talk", "900,1800", "proportional")
    config.grids.warm_up = studies.grid("tiny", "talk", "900", "fixed")
    config.evaluations.facts = {"data": f"{DEMO}/quiz.jsonl", "limit": 12}
    config.evaluations.mmlu = {"data_dir": "PUBLIC/mmlu"}
    config.evaluations.answers = {"prompts": f"{DEMO}/teacher.jsonl", "limit": 6, "max_new_tokens": 8}
    config.evaluations.style = {"reference": f"{DEMO}/teacher.jsonl"}
    config.teacher.name, config.teacher.answers = "teacher", f"{DEMO}/teacher_second_sample.jsonl"
    return config
"""
CELLS = ["tiny-talk-900-proportional", "tiny-talk-900-fixed", "tiny-talk-1.8k-proportional"]


@pytest.fixture
def study_flags(tmp_path, command, tiny_config, write_dialogues):
    """The flags of a study whose base is a tiny model."""
    data = write_dialogues(tmp_path / "talk.jsonl", 60)
    made = command("train", f"--config={tiny_config}", f"--config.data.path={data}", "--config.steps=1",
                   f"--workdir={tmp_path / 'base'}")  # fmt: skip
    assert made.returncode == 0, made.stderr
    text = CONFIG.replace("BASE", str(tmp_path / "base")).replace("TRAIN", str(tiny_config)).replace("DATA", str(data))
    (tmp_path / "study.py").write_text(text)
    return [f"--config={tmp_path / 'study.py'}", f"--workdir={tmp_path / 'study'}"]


def kill_when(command, flags: list[str], ready) -> None:
    process = command.start("study", *flags)
    end = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def files(workdir: Path) -> dict[str, int]:
    return {
        str(path.relative_to(workdir)): path.stat().st_mtime_ns
        for path in workdir.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.slow
def test_killed_twice_it_gives_the_whole_report_and_then_has_nothing_to_do(study_flags, command, tmp_path):
    workdir = tmp_path / "study"
    first, second = (workdir / "runs" / name / "metrics.jsonl" for name in CELLS[:2])
    kill_when(command, study_flags, lambda: first.exists() and len(first.read_text().splitlines()) >= 3)
    written = json.loads((workdir / "study.json").read_text())
    assert [cell["name"] for cell in written["cells"]] == CELLS
    kill_when(command, study_flags, lambda: any((workdir / "eval").glob(f"{CELLS[1]}/*")))
    done = command("study", *study_flags)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "left out: mmlu: mmlu is public data, and config.public is empty" in done.stderr

    written = json.loads((workdir / "study.json").read_text())
    assert [cell["status"] for cell in written["cells"]] == ["done"] * 3 and written["teacher"] == "teacher"
    for name in CELLS:
        rows = [json.loads(line) for line in (workdir / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert not list((workdir / "runs" / name).glob("checkpoints/*/optimizer"))
    for name in ("tiny", *CELLS):
        assert {path.name for path in (workdir / "eval" / name).iterdir()} == {
            *("answers.json", "answers.jsonl", "facts.json", "facts.samples.jsonl"),
            *("style.json", "style.samples.jsonl"),
        }
    ceiling = json.loads((workdir / "eval" / "teacher" / "style.json").read_text())
    assert ceiling["n"] == json.loads((workdir / "eval" / "tiny" / "style.json").read_text())["n"] == 6
    assert (workdir / "data" / "talk" / "card" / "index.html").exists()
    page = (workdir / "report" / "index.html").read_text()
    assert all(name in page for name in ("Tiny", "Talk"))
    assert re.search(r"tiny-talk-1.8k-proportional +\d,\d+ +done +0\.\d{3} +\d\.\d{3}", done.stdout), done.stdout

    before, begin = files(workdir), time.monotonic()
    again = command("study", *study_flags)
    assert again.returncode == 0 and "nothing is missing" in again.stderr, again.stderr
    assert files(workdir) == before
    assert time.monotonic() - begin < 60  # on a machine that does other things as well

    # A result that is taken away is made again, and nothing else.
    shutil.rmtree(workdir / "eval" / CELLS[0])
    again = command("study", *study_flags)
    assert again.returncode == 0, again.stderr
    changed = {path for path, when in files(workdir).items() if before.get(path) != when}
    assert {path.split("/")[1] for path in changed if path.startswith("eval/")} == {CELLS[0]}


def test_a_dry_run_prints_every_command_and_writes_nothing(command, tmp_path):
    workdir = tmp_path / "study"
    flags = ["--config=configs/studies/smollm2.py", f"--workdir={workdir}", "--config.public=", "--scale=0.01"]
    done = command("study", *flags, "--dry_run")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("python -m imitation_jax.")]
    count = int(re.match(r"(\d+) cells, ", done.stdout)[1])
    assert sum("imitation_jax.train " in line for line in commands) == count
    assert sum("imitation_jax.evaluate --config=configs/eval/all.py" in line for line in commands) == count + 1
    assert "left out: mmlu: mmlu is public data, and config.public is empty" in done.stdout
    assert not workdir.exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--scale=0"], "--scale=0.0 must lie above 0 and be at most 1"),
        (["--launcher=cloud"], "--launcher=cloud is none of here, slurm, tpu"),
        (["--launcher=tpu"], "must be in a bucket, which the slices can see"),
        (["--config.grids.broad.data=nothing"], "config.grids.broad.data: 'nothing' is none of config.builds: "),
    ],
)
def test_a_wrong_call_is_one_line(command, tmp_path, flags, message):
    done = command("study", "--config=configs/studies/smollm2.py", f"--workdir={tmp_path / 'study'}", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not done.stdout
    assert message in done.stderr and done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "study").exists()
