"""A launcher is a file in studies/launchers: with it alone it has its keys, its name and its share of the jobs."""

import pytest

from imitation_jax.studies import config as studies
from imitation_jax.studies import launchers, study
from imitation_jax.studies.jobs import Job

TOY = '''
"""Another machine, which is this one."""

from imitation_jax.core.fingerprint import PLACE, Key, Keys
from imitation_jax.studies import local_runner

KEYS = Keys(queue=Key("short", "of the machine", PLACE))


def check(layout):
    if not layout.config.toy.queue:
        raise ValueError("--launcher=toy: config.toy.queue is empty")


def run(session, jobs):
    names = [session.status.layout.config.toy.queue, *(job.name for job in jobs)]
    (session.here / "toy.txt").write_text(" ".join(names))
    local_runner.run(session, jobs)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    folder = tmp_path / "launchers"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(launchers, "__path__", [*launchers.__path__, str(folder)])


def test_a_launcher_is_one_file(toy, make_config, tmp_path, monkeypatch):
    assert launchers.names() == ["slurm", "toy", "tpu"]
    config = make_config()
    assert config.toy.queue == "short"
    config.toy.queue = ""
    with pytest.raises(ValueError, match="--launcher=toy: config.toy.queue is empty"):
        study.study(config, str(tmp_path / "study"), 1, "toy")

    def jobs(layout, here):
        """As a study's, each done by making a file; one of the cells fails."""
        names = {"data talk": "build", "tiny": "base", **{cell.name: "cell" for cell in layout.cells}}
        for name, kind in names.items():
            path = here / name.replace(" ", "-")
            script = "echo 'error: out of memory'; exit 1" if "20k" in name else f"touch {path}"
            yield Job(name, kind, (["bash", "-c", script],), path.exists)

    monkeypatch.setattr(study, "study_jobs", jobs)
    config.toy.queue = "long"
    failed = "1 of 4 jobs failed, the first one tiny-talk-20k-flat: out of memory"
    monkeypatch.setattr(study, "_report", lambda *_: None)
    with pytest.raises(OSError, match=failed):
        study.study(config, str(tmp_path / "study"), 1, "toy")
    handed = (tmp_path / "study" / "toy.txt").read_text().split()
    assert handed == ["long", "tiny", "tiny-talk-10k-flat", "tiny-talk-20k-flat"]  # the data were made here, before


def test_the_launchers_have_their_keys_in_a_study_s_config():
    config = studies.get_config("study")
    assert config.slurm.to_dict() == {"flags": ""}
    assert config.tpu.to_dict() == {"slice": "", "flags": "", "at_once": 4}


def test_an_unknown_launcher_is_one_line(make_config, tmp_path):
    with pytest.raises(ValueError, match="--launcher=cloud is none of here, slurm, tpu"):
        study.study(make_config(), str(tmp_path), 1, "cloud")
