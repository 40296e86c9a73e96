"""A format and a cleaning step are added by files of their own: a module each, and a config that names them."""

import json
import runpy
import sys

import pytest

from imitation_jax.data import cleaning, sources
from imitation_jax.data.prepare import prepare

FORMAT = '''
"""Questions and answers, a line each, apart by a tab."""

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues


def read(paths, max_bytes=json_rows.MAX_BYTES):
    for path in paths:
        for where, line in json_rows.read_lines(path, max_bytes):
            asked, tab, said = line.partition("\\t") if isinstance(line, str) else ("", "", "")
            if not tab:
                yield where, line if isinstance(line, Rejected) else Rejected(where, None, "no tab", line)
                continue
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            yield where, {"id": dialogues.id_of(where, None), "source": "tabs", "messages": turns}
'''
STEP = '''
"""Drops dialogues with too loud an answer, and takes the exclamation marks out of the others."""

import functools

from ml_collections import ConfigDict


def get_config():
    return ConfigDict({"most": 2})


def make(settings):
    if settings.most < 0:
        raise ValueError(f"config.shouting.most={settings.most} must be 0 or more")
    return functools.partial(_apply, most=settings.most)


def _apply(dialogue, most):
    asked, said = dialogue["messages"]
    loud = said["content"].count("!")
    if loud > most:
        return f"shouting: {loud} exclamation marks"
    return dialogue | {"messages": [asked, said | {"content": said["content"].replace("!", "")}]} if loud else dialogue
'''
CONFIG = """
from imitation_jax.data import prepare


def get_config():
    config = prepare.get_config("tabs")
    config.steps = "shouting,exact_duplicates"
    return config
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    for package, name, text in ((sources, "tabs", FORMAT), (cleaning, "shouting", STEP)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    (tmp_path / "tabs_config.py").write_text(CONFIG)
    yield runpy.run_path(str(tmp_path / "tabs_config.py"))["get_config"]()
    for package, name in ((sources, "tabs"), (cleaning, "shouting")):
        del sys.modules[f"{package.__name__}.{name}"]
        delattr(package, name)


def test_a_format_and_a_step_are_a_module_each(config, tmp_path):
    (tmp_path / "in.txt").write_text("Who?\tMe!\nWhy?\tSo!!!\nno tab\nwho\tYou\n")
    config.input = str(tmp_path / "in.txt")
    card = prepare(config, str(tmp_path / "out"))
    (kept,) = map(json.loads, (tmp_path / "out" / "dialogues.jsonl").read_text().splitlines())
    assert [turn["content"] for turn in kept["messages"]] == ["Who?", "Me"]
    assert card["reasons"] == {"no tab": 1, "shouting": 1, "exact duplicate": 1}
    assert [(step["step"], step["rows"], step["changed"]) for step in card["funnel"][-2:]] == [
        ("shouting", 2, 1),
        ("exact_duplicates", 1, 0),
    ]
    assert "shouting" in (tmp_path / "out" / "card" / "index.html").read_text()
    config.shouting.most = -1
    with pytest.raises(ValueError, match="config.shouting.most=-1 must be 0 or more"):
        prepare(config, str(tmp_path / "other"))
