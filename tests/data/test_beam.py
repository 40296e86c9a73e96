"""The steps on Apache Beam give the local run's bytes."""

import json
import random
from pathlib import Path

import pytest

from imitation_jax.data.prepare import get_config, prepare

pytest.importorskip("apache_beam", reason="needs apache-beam: pip install 'imitation_jax[beam]'")
from imitation_jax.data import beam  # noqa: E402

pytestmark = pytest.mark.slow


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def both(config, tmp_path, flags=""):
    here = prepare(config, str(tmp_path / "here"))
    config.runner, config.runner_flags = "DirectRunner", flags
    there = prepare(config, str(tmp_path / "there"))
    assert here == there
    assert files(tmp_path / "here") == files(tmp_path / "there")
    return here


def test_the_sample_comes_out_the_same(lent, tmp_path):
    config = get_config("sharegpt")
    config.input = str(lent("sharegpt/sharegpt_sample.jsonl.gz"))
    config.steps = "error_replies,repetition,language,exact_duplicates,near_duplicates,personal_data,decontaminate"
    config.shards = 2
    config.decontaminate.files = str(tmp_path / "items.jsonl")
    text = "how to write a letter to a friend who has moved to another town"
    (tmp_path / "items.jsonl").write_text(json.dumps({"text": text}))
    card = both(config, tmp_path)
    assert card["rows"] == 2338 and all(step["rows"] > 2000 for step in card["funnel"])


def test_what_a_killed_worker_left_is_not_read(tmp_path, monkeypatch):
    write = beam._write

    def killed_and_tried_again(block, rows, folder):
        Path(folder, f"{block:08d}.1.tmp").write_bytes(b"half")
        write(block, rows, folder)

    monkeypatch.setattr(beam, "_write", killed_and_tried_again)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "source": "t", "messages": messages}) + "\n")
    config = get_config("messages")
    config.input, config.runner = str(tmp_path / "in.jsonl"), "DirectRunner"
    assert prepare(config, str(tmp_path / "out"))["dialogues"] == 1


@pytest.mark.parametrize("flags", ["", "--direct_num_workers=2 --direct_running_mode=multi_processing"])
def test_families_of_duplicates_come_out_the_same(tmp_path, flags):
    """Rows that are near many others, more than are compared, in all orders, beside rows that cannot be read."""
    drawn = random.Random(0)
    words = [f"word{number}" for number in range(40)]
    with open(tmp_path / "in.jsonl", "w") as file:
        for number in range(400):
            some = words[:]
            for _ in range(drawn.randrange(16)):
                some[drawn.randrange(40)] = f"other{drawn.randrange(60)}"
            messages = [{"role": "user", "content": " ".join(some)}, {"role": "assistant", "content": "ok"}]
            row = json.dumps({"id": str(number % 300), "source": "test", "messages": messages, "\ud800": 10**30})
            file.write(("{" if number % 50 == 7 else "") + row + "\n")
    config = get_config("messages")
    config.input = str(tmp_path / "in.jsonl")
    config.steps = "near_duplicates,length,exact_duplicates"
    config.near_duplicates.compared = 3
    config.card.nearest_queries = 0
    card = both(config, tmp_path, flags)
    assert card["reasons"]["near duplicate"] > 100 and card["dialogues"] > 20
