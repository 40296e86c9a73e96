import gzip
import hashlib
import json
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from imitation_jax.data import benchmark_rows


def test_a_csv_file_gives_dicts_of_texts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefftext,label\r\n"two\nlines, and a ""quote""",1\r\n\r\né,\r\n'.encode())
    wanted = [{"text": 'two\nlines, and a "quote"', "label": "1"}, {"text": "é", "label": ""}]
    assert benchmark_rows.read_rows(str(path)) == [(f"{path}:3", wanted[0]), (f"{path}:5", wanted[1])]
    zipped = tmp_path / "t.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert [row for _, row in benchmark_rows.read_rows(str(zipped))] == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", "t.csv:3: 1 columns, expected 2"),
        (b'a,b\n1,"2\n3,4\n', "t.csv:3: not CSV: unexpected end of data"),
        (b"a,a\n1,2\n", "t.csv:1: the first line must name every column once"),
        (b"a,\n1,2\n", "t.csv:1: the first line must name every column once"),
        (b"a,b\n\xff,2\n", "t.csv: not UTF-8 .* at byte 4"),
        (b"a,b\n", "t.csv: holds no rows"),
        (b"", "t.csv: holds no rows"),
    ],
)
def test_a_damaged_csv_file_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        benchmark_rows.read_rows(str(tmp_path / "t.csv"))
    assert "\n" not in str(error.value)


def test_a_zipped_csv_file_cut_off_is_named(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:-20])
    with pytest.raises(ValueError, match="t.csv.gz: cut off"):
        benchmark_rows.read_rows(str(tmp_path / "t.csv.gz"))


def test_what_is_read_is_recorded(tmp_path):
    files = {"a.jsonl": b'{"x": 1}\n', "b.csv": b"x\n1\n", "c.txt": b"x\n", "d.json": b'[{"x": 1}]'}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with benchmark_rows.recording() as data:
        for name in ("a.jsonl", "b.csv", "d.json"):
            assert len(benchmark_rows.read_rows(str(tmp_path / name))) == 1
        benchmark_rows.read_lines(str(tmp_path / "c.txt"))
    benchmark_rows.read_rows(str(tmp_path / "a.jsonl"))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert data == {str(tmp_path / name): {"sha256": sums[name], "bytes": len(files[name])} for name in files}


class Quiz(tfds.core.GeneratorBasedBuilder):
    """Features as the catalog's question sets have them."""

    VERSION = tfds.core.Version("1.10.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, version="1.10.0") for name in ("easy", "hard")]
    url_infos = None

    def _info(self):
        label = tfds.features.ClassLabel(names=["A", "B", "C"])
        choices = tfds.features.Sequence({"text": tfds.features.Text(), "label": label})
        features = {"question": tfds.features.Text(), "choices": choices, "answerKey": label, "label": np.int32}
        endings = tfds.features.Sequence(tfds.features.Text())
        features |= {"two": tfds.features.ClassLabel(num_classes=2), "endings": endings}
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples(3), "train": self._generate_examples(5)}

    def _generate_examples(self, count):
        for i in range(count):
            choices = {"text": ["x", "y"], "label": ["A", "B"]}
            answers = {"answerKey": "B" if i else -1, "label": i, "two": i % 2}
            yield i, {"question": f"é{i}", "choices": choices, **answers, "endings": ["m", "n"]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with quiz/easy and quiz/hard."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    for config in ("easy", "hard"):
        Quiz(data_dir=str(folder), config=config, file_format="array_record").download_and_prepare()
    return folder


def test_a_tfds_dataset_gives_the_rows_that_json_would(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    with benchmark_rows.recording() as data:
        found = benchmark_rows.read_rows("tfds:quiz/easy:test")
    assert [where for where, _ in found] == [f"tfds:quiz/easy:test[{i}]" for i in range(3)]
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    wanted = {"question": "é1", "choices": choices, "answerKey": "B", "label": 1, "two": "1", "endings": ["m", "n"]}
    assert found[1][1] == wanted
    assert found[0][1]["answerKey"] is None
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for _, row in found)
    entry = {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "rows": 3, "version": "1.10.0"}
    assert data == {"tfds:quiz/easy:test": entry}


def test_where_a_tfds_dataset_can_lie(prepared, tmp_path, monkeypatch, bucket):
    wanted = [row for _, row in benchmark_rows.read_rows(f"tfds:{prepared}/quiz/hard/1.10.0:train")]
    assert len(wanted) == 5
    assert [row for _, row in benchmark_rows.read_rows(f"tfds:{prepared}/quiz/hard:train[1:3]")] == wanted[1:3]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bucket.put(str(prepared / "quiz" / "hard"), "gs://bucket/hard", recursive=True)
    assert [row for _, row in benchmark_rows.read_rows("tfds:gs://bucket/hard:train")] == wanted
    assert not list(tmp_path.iterdir())
    (tmp_path / "t.csv").write_text("a\n1\n")
    bucket.put(str(tmp_path / "t.csv"), "gs://bucket/t.csv")
    assert benchmark_rows.read_rows("gs://bucket/t.csv") == [("gs://bucket/t.csv:2", {"a": "1"})]


def test_a_dataset_that_is_not_there_is_one_clear_line(prepared, monkeypatch):
    def refused(spec, message, kind=ValueError):
        with pytest.raises(kind, match=message) as error:
            benchmark_rows.read_rows(spec)
        assert "\n" not in str(error.value)

    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    refused("tfds:piqa:test", "no prepared dataset in .*/piqa; run `tfds build piqa", FileNotFoundError)
    refused("tfds:quiz:test", "holds several configs; add one of them to the name: easy, hard")
    refused("tfds:quiz/easy:validation", "has no split 'validation'; there are test, train")
    refused("tfds:quiz/easy:test[x]", "Error parsing split")
    refused("tfds:quiz", "expected tfds:NAME")
    refused("tfds:./nowhere:test", "no prepared dataset in nowhere; name a folder", FileNotFoundError)
    info = prepared / "quiz/easy/1.10.0/dataset_info.json"
    kept = info.read_text()
    try:
        info.write_text(kept.replace("array_record", "tfrecord"))
        refused("tfds:quiz/easy:test", "its files are tfrecord; prepare it again with --file_format=array_record")
    finally:
        info.write_text(kept)
