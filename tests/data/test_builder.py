import hashlib
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import builder


def talk(n):
    messages = [{"role": "user", "content": f"q{n} é"}, {"role": "assistant", "content": "a" * n, "weight": 1}]
    return {"id": f"d{n}", "source": "test", "messages": messages, "extra": {"n": n, "deep": [None]}}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def test_round_trip_keeps_order_and_every_key(tmp_path):
    wanted = [talk(n) for n in range(1, 700)]
    builder.build(lambda: wanted, tmp_path / "a")
    assert [item for _, item in builder.read(builder.find(tmp_path / "a"))] == wanted


def test_it_is_a_tfds_dataset_of_array_records(tmp_path):
    builder.build(lambda: [talk(3)], tmp_path)
    data = tfds.builder_from_directory(tmp_path / "dialogues" / "1.0.0").as_data_source(split="train")
    assert len(data) == 1 and b'"id": "d3"' in data[0]["dialogue"]
    assert list(tmp_path.rglob("*.array_record*"))


def test_same_dialogues_same_bytes(tmp_path):
    for name in "ab":
        builder.build(lambda: map(talk, range(1, 300)), tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_bad_dialogue_inside_is_set_aside(tmp_path):
    builder.build(lambda: [talk(1), {"id": "x", "messages": []}], tmp_path)
    first, second = builder.read(builder.find(tmp_path))
    assert first[1] == talk(1)
    assert isinstance(second[1], Rejected) and second[1].id == "x" and second[0].endswith("1.0.0[1]")


def test_find(tmp_path):
    assert builder.find(tmp_path) is None
    builder.build(lambda: [talk(1)], tmp_path / "tfds")
    folder = tmp_path / "tfds" / "dialogues" / "1.0.0"
    assert [str(builder.find(path)) for path in (tmp_path, tmp_path / "tfds", folder)] == [str(folder)] * 3
    (tmp_path / "tfds" / "other" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tfds" / "other" / "1.0.0" / "dataset_info.json").touch()
    with pytest.raises(ValueError, match="holds 2 datasets"):
        builder.find(tmp_path)


def test_no_tensorflow_and_no_words_on_stdout(tmp_path):
    code = (
        "import sys; from imitation_jax.data import builder;"
        "m = [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}];"
        f"builder.build(lambda: [{{'id': 'a', 'messages': m}}], {str(tmp_path)!r});"
        f"assert len(list(builder.read(builder.find({str(tmp_path)!r})))) == 1;"
        "assert not {'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
