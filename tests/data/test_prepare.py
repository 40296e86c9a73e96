import collections
import gzip
import importlib.util
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from imitation_jax.core.files import new_folder
from imitation_jax.data import builder
from imitation_jax.data.prepare import prepare
from imitation_jax.data.sources import input_files

ROOT = Path(__file__).parents[2]
H, G = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
ROWS = [
    {"id": "a", "conversations": [H, G]},
    {"id": "a", "conversations": [G, H, G, H]},
    {"id": "b", "conversations": []},
    {"id": "c", "conversations": []},
    {"id": "d", "conversations": [H, H, G]},
]


@pytest.fixture
def config() -> ConfigDict:
    file = ROOT / "configs" / "data" / "sharegpt.py"
    spec = importlib.util.spec_from_file_location("sharegpt_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture
def dump(tmp_path) -> Path:
    path = tmp_path / "in" / "dump.json"
    path.parent.mkdir()
    path.write_text(json.dumps(ROWS)[:-1])  # cut off: its ] is missing
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_is_somewhere(config, dump, tmp_path):
    config.input = str(dump)
    out = tmp_path / "new" / "out"
    card = prepare(config, str(out))
    kept, rejected = lines(out / "dialogues.jsonl"), lines(out / "rejected.jsonl")
    assert [(d["id"], d.get("original_id"), len(d["messages"])) for d in kept] == [("a", None, 2), ("a#2", "a", 3)]
    assert [row["where"] for row in rejected[:3]] == [f"{dump}[{n}]" for n in (2, 3, 4)]
    assert [row["row"] for row in rejected[:3]] == ROWS[2:]
    assert [row["reason"] for row in rejected[2:]] == ["two user turns in a row", "the list is cut off here"]
    assert card == json.loads((out / "card" / "card.json").read_text())
    assert (card["rows"], card["dialogues"], card["rejected"]) == (6, 2, 4)
    assert card["reasons"] == {"no messages": 2, "two user turns in a row": 1, "the list is cut off here": 1}
    assert (card["leading_turns_dropped"], card["repeated_ids_renamed"]) == (1, 1)
    assert card["turns"] == {"user": 3, "assistant": 2}
    assert card["histogram_turns_per_dialogue"] == {"2": 1, "3": 1}
    assert card["histogram_characters_below"] == {"4": 2}
    assert [item for _, item in builder.read(builder.find(out))] == kept
    assert sorted(path.name for path in out.iterdir()) == ["card", "dialogues.jsonl", "rejected.jsonl", "tfds"]


def test_existing_output_is_refused_and_a_killed_run_cleared(config, dump, tmp_path):
    config.input = str(dump)
    left = tmp_path / "out.tmp" / "tfds"
    left.mkdir(parents=True)
    (left / "half").touch()
    prepare(config, str(tmp_path / "out"))
    before = (tmp_path / "out" / "dialogues.jsonl").read_bytes()
    assert not (tmp_path / "out.tmp").exists() and not list((tmp_path / "out").rglob("half"))
    with pytest.raises(ValueError, match="out exists: delete it, or give another folder$"):
        prepare(config, str(tmp_path / "out"))
    assert (tmp_path / "out" / "dialogues.jsonl").read_bytes() == before


def test_nothing_left_is_one_clear_line(config, tmp_path):
    config.input = str(tmp_path / "d.json")
    for content, message in ((ROWS[2:], "all 3 rows were rejected, 2 of them because of: no messages"), ([], "empty")):
        (tmp_path / "d.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message) as error:
            prepare(config, str(tmp_path / "out"))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
        rejected = tmp_path / "out.tmp" / "rejected.jsonl"
        if content:
            assert f"(see {rejected})" in str(error.value)
            assert [row["row"] for row in lines(rejected)] == content
        else:
            assert not rejected.exists()


def test_two_runs_do_not_write_the_same_folder(config, dump, tmp_path):
    config.input = str(dump)
    with new_folder(str(tmp_path / "out")) as part:
        (part / "mine").touch()
        with pytest.raises(ValueError, match="out: another run is writing it; wait, or give another folder$"):
            prepare(config, str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_output_that_cannot_be_made_is_one_clear_line(config, dump):
    config.input = str(dump)
    with pytest.raises(OSError, match="^--output=.*/new cannot be written .*: give another folder$"):
        prepare(config, f"{dump}/new")


def test_shards_are_at_most_one_a_dialogue_and_never_negative(config, dump, tmp_path):
    config.input, config.shards = str(dump), -1
    with pytest.raises(ValueError, match="config.shards=-1 must be 0"):
        prepare(config, str(tmp_path / "out"))
    config.shards = 50
    prepare(config, str(tmp_path / "out"))
    assert len(list((tmp_path / "out" / "tfds").rglob("*.array_record*"))) == 2


def test_a_long_row_is_set_aside(config, tmp_path):
    config.input = str(tmp_path / "d.json")
    config.max_row_bytes = 200
    (tmp_path / "d.json").write_text(
        json.dumps([ROWS[0], {"id": "long", "conversations": [H, G | {"value": "a" * 200}]}])
    )
    card = prepare(config, str(tmp_path / "out"))
    assert card["reasons"] == {"row of more than 200 bytes": 1} and card["dialogues"] == 1


def test_input_paths_and_patterns(tmp_path):
    for name in ("a1.json", "a2.json", "b.json", "c[1].json", "deep/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(given):
        return [str(Path(path).relative_to(tmp_path)) for path in input_files(given.replace("@", str(tmp_path) + "/"))]

    assert found("@b.json, @a*.json") == ["b.json", "a1.json", "a2.json"]
    assert found("@c[1].json,@*/x.json") == ["c[1].json", "deep/x.json"]
    for wrong, message in (("@no.json", "no file"), ("@n*.json", "no file"), (" ,", "empty"), ("@deep", "is a folder")):
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            found(wrong)


def test_command(dump, command, tmp_path):
    config = "--config=configs/data/sharegpt.py"
    done = command("prepare", config, f"--config.input={dump}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / "out" / "dialogues.jsonl")) == 2
    for flags in (
        (f"--config.input={dump}", f"--output={tmp_path / 'out'}"),
        ("--config.input=no.json", f"--output={tmp_path / 'other'}"),
        ("--config.inptu=no.json", f"--output={tmp_path / 'other'}"),
    ):
        done = command("prepare", config, *flags)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


def test_lent_sample_adds_up(config, lent, tmp_path):
    path = lent("sharegpt/sharegpt_sample.jsonl.gz")
    config.input = str(path)
    card = prepare(config, str(tmp_path / "out"))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        dump = [json.loads(line) for line in file]
    kept, rejected = lines(tmp_path / "out" / "dialogues.jsonl"), lines(tmp_path / "out" / "rejected.jsonl")
    assert len(dump) == 2338 == card["rows"]
    # What is not in rejected.jsonl is in dialogues.jsonl, in order, with all its turns.
    places = [int(row["where"].rpartition(":")[2]) - 1 for row in rejected]
    assert [dump[place]["id"] for place in places] == [row["id"] for row in rejected]
    rest = [row for place, row in enumerate(dump) if place not in set(places)]
    assert len(rest) == len(kept) and len(set(places)) == len(places)
    for row, dialogue in zip(rest, kept, strict=True):
        assert row["id"] == dialogue.get("original_id", dialogue["id"])
        assert len(row["conversations"]) == len(dialogue["messages"]) + dialogue.get("leading_turn_dropped", 0)
    assert len({dialogue["id"] for dialogue in kept}) == len(kept)
    assert [item for _, item in builder.read(builder.find(tmp_path / "out"))] == kept
    # The sums agree at every step.
    steps, left = collections.Counter(row["step"] for row in rejected), len(dump)
    for step in card["funnel"][1:]:
        left -= steps[step["step"]]
        assert (step["rows"], step["dropped"]) == (left, steps[step["step"]]) == (left, sum(step["reasons"].values()))
    assert left == len(kept) == card["dialogues"] == sum(card["sources"].values())
    assert len(rejected) == card["rejected"] == sum(card["reasons"].values())
    for histogram in (card["histogram_turns_per_dialogue"], card["length"]["histogram_below"]):
        assert sum(histogram.values()) == len(kept)
    assert sum(card["turns"].values()) == sum(len(dialogue["messages"]) for dialogue in kept)
