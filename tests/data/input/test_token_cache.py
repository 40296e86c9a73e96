import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tokenizers
from etils import epath
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from tokenizers import models, processors

from imitation_jax.data import builder
from imitation_jax.data.input import token_cache
from imitation_jax.tokenizers.chat_template import ChatTemplate
from imitation_jax.tokenizers.tokenizer import Tokenizer


def talk(n):
    messages = [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "answer " * (n % 9 + 1)}]
    return {"id": f"d{n}", "source": "test", "messages": messages}


@pytest.fixture
def data(write, tmp_path):
    return write(tmp_path / "d.jsonl", map(talk, range(100)))


def contents(cache):
    return [cache.ids.tolist(), cache.mask.tolist(), cache.offsets.tolist(), cache.meta]


def test_every_dialogue_as_the_template_tokenises_it(tmp_path, data, tokenizer, template):
    cache = token_cache.load(data, tokenizer, template, tmp_path / "cache")
    assert (cache.ids.dtype, cache.mask.dtype, cache.offsets.dtype) == (np.uint32, np.uint8, np.int64)
    for n in range(100):
        ids, mask = template.tokenize(talk(n)["messages"])
        begin, end = cache.offsets[n : n + 2]
        assert (cache.ids[begin:end].tolist(), cache.mask[begin:end].tolist()) == (ids, mask)
    assert cache.meta["dialogues"] == 100 and cache.meta["loss_tokens"] == cache.mask.sum()


def test_file_gz_folder_and_workers_give_the_same(tmp_path, data, tokenizer, template):
    wanted = contents(token_cache.load(data, tokenizer, template, tmp_path / "1"))
    with open(data, "rb") as file:
        (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(file.read()))
    builder.build(lambda: map(talk, range(100)), tmp_path / "made" / "tfds")
    for path in (tmp_path / "d.jsonl.gz", tmp_path / "made", tmp_path / "made" / "tfds"):
        assert contents(token_cache.load(str(path), tokenizer, template, tmp_path / "2")) == wanted
    assert contents(token_cache.load(data, tokenizer, template, tmp_path / "3", workers=2)) == wanted


def test_the_cache_is_used_until_something_changes(write, tmp_path, data, tokenizer, template):
    def load(template=template):
        return token_cache.load(data, tokenizer, template, tmp_path / "cache").folder

    folder = load()
    made = (folder / "ids.bin").stat().st_mtime_ns
    assert load() == folder and (folder / "ids.bin").stat().st_mtime_ns == made
    assert load(ChatTemplate(template.source.replace("GPT:", "BOT:"), tokenizer)) != folder
    write(tmp_path / "d.jsonl", map(talk, range(99)))
    assert load() != folder
    assert contents(pickle.loads(pickle.dumps(token_cache.Tokens(folder)))) == contents(token_cache.Tokens(folder))


def test_what_cannot_be_used_is_set_aside_with_its_reason(write, tmp_path, tokenizer):
    source = (
        "{% for m in messages %}{% if 'bad' in m['content'] %}{{ raise_exception('no bad words') }}{% endif %}"
        "{% if m['role'] == 'user' %}{{ '<s>' + m['content'] }}"
        "{% else %}{% generation %}{{ m['content'] | replace('mute', '') }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    template = ChatTemplate(source, tokenizer)
    bad, mute = talk(1), talk(2)
    bad["messages"][0]["content"] = "bad"
    mute["messages"][1]["content"] = "mute"
    write(tmp_path / "d.jsonl", [bad, talk(3), mute, talk(4) | {"messages": []}])
    cache = token_cache.load(str(tmp_path / "d.jsonl"), tokenizer, template, tmp_path / "cache")
    assert (cache.meta["dialogues"], cache.meta["rejected"]) == (1, 3)
    rejected = [json.loads(line) for line in (cache.folder / "rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["where"][-2:], row["row"]) for row in rejected] == [
        ("d1", ":1", bad),
        ("d2", ":3", mute),
        ("d4", ":4", talk(4) | {"messages": []}),
    ]
    assert "no bad words" in rejected[0]["reason"] and rejected[1]["reason"] == "no loss-bearing token"
    assert sum(cache.meta["reasons"].values()) == 3


def test_plain_text_bears_loss_everywhere(write, tmp_path, tokenizer, template):
    texts = ["once upon a time", "a café", "<s> and </s>"]
    mixed = [{"text": texts[0]}, talk(1), {"id": "t", "text": texts[1], "more": 1}, {"text": texts[2]}]
    bad = [{"text": " \n"}, {"text": "\ud83d"}, {"text": 5}, {"text": "x", "messages": []}]
    path = write(tmp_path / "d.jsonl", mixed + bad)
    builder.build(lambda: iter(mixed + bad), tmp_path / "tfds")
    for source, workers in ((path, 0), (path, 1), (str(tmp_path / "tfds"), 0)):
        cache = token_cache.load(source, tokenizer, template, tmp_path / f"{workers}", workers)
        found = [cache.ids[a:b].tolist() for a, b in zip(cache.offsets, cache.offsets[1:], strict=False)]
        eos = [tokenizer.eos_id]
        ends = [tokenizer.encode(text) + eos for text in texts[:2]] + [tokenizer.encode(texts[2])]
        assert found == [ends[0], template.tokenize(talk(1)["messages"])[0], *ends[1:]]
        assert [cache.mask[cache.offsets[n] : cache.offsets[n + 1]].all() for n in range(4)] == [
            True,
            False,
            True,
            True,
        ]
        assert (cache.meta["dialogues"], cache.meta["texts"], cache.meta["rejected"]) == (4, 3, 4)
        assert cache.meta["loss_tokens"] == cache.mask.sum() - 3  # nothing comes before a text's first token
        reasons = sorted(cache.meta["reasons"].items())
        assert reasons[0] == ("no loss-bearing token", 1) and reasons[1] == ("no messages", 2)
        assert reasons[2][0].startswith("the tokenizer fails: ") and "surrogate" in reasons[2][0]


def test_a_text_begins_as_the_tokenizer_begins_it(write, tmp_path, template):
    backend = tokenizers.Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})
    path = write(tmp_path / "d.jsonl", [{"text": "a"}])
    assert token_cache.load(path, tokenizer, template, tmp_path / "cache").ids.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}\n"] * 3 + ["nonsense\n"], "all 4 were rejected, 3 of them because of: no messages"),
        (["\n"], "it is empty"),
    ],
)
def test_no_data_left_is_one_clear_line(tmp_path, tokenizer, template, lines, message):
    (tmp_path / "d.jsonl").write_text("".join(lines))
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ValueError, match=message) as error:
            token_cache.load(str(tmp_path / "d.jsonl"), tokenizer, template, tmp_path / "cache")
        assert "\n" not in str(error.value) and "d.jsonl" in str(error.value)


class Bucket(MemoryFileSystem):
    """What gcsfs is to epath, without a network."""

    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


def test_a_tfds_folder_in_a_bucket_is_copied_for_the_time(tmp_path, data, tokenizer, template, monkeypatch):
    wanted = contents(token_cache.load(data, tokenizer, template, tmp_path / "1"))
    builder.build(lambda: map(talk, range(100)), tmp_path / "made" / "tfds")
    systems = {"gcs": Bucket(), "file": LocalFileSystem()}
    monkeypatch.setattr(type(epath.backend.fsspec_backend), "_get_filesystem", lambda self, name: systems[name])
    systems["gcs"].put(str(tmp_path / "made"), "gs://bucket/made", recursive=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    assert contents(token_cache.load("gs://bucket/made", tokenizer, template, tmp_path / "2")) == wanted
    assert [row for _, row in token_cache.read("gs://bucket/made")] == list(map(talk, range(100)))
    assert not list((tmp_path / "scratch").iterdir()) and len(list((tmp_path / "2").iterdir())) == 1


def test_nothing_there(tmp_path, tokenizer, template):
    for path in (tmp_path / "no.jsonl", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            token_cache.load(str(path), tokenizer, template, tmp_path / "cache")


def test_a_damaged_cache_is_noticed(tmp_path, data, tokenizer, template):
    folder = token_cache.load(data, tokenizer, template, tmp_path / "cache").folder
    os.truncate(folder / "ids.bin", 100)
    with pytest.raises(ValueError, match="ids.bin is damaged"):
        token_cache.load(data, tokenizer, template, tmp_path / "cache")


def test_a_failing_disk_leaves_nothing_behind(tmp_path, data, tokenizer, template, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache, "_one", full)
    with pytest.raises(OSError, match="No space left"):
        token_cache.load(data, tokenizer, template, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


SLOW_LOAD = """
import sys, time
sys.path.insert(0, {tests!r})
from imitation_jax.data.input import token_cache
class Slow:
    fingerprint = "slow"
    def tokenize(self, messages):
        time.sleep(0.01)
        return [1, len(messages[1]["content"])], [0, 1]
print(token_cache.load({data!r}, Slow, Slow(), {cache!r}).meta["tokens"])
"""


def start(tmp_path, data):
    code = SLOW_LOAD.format(tests=str(tmp_path), data=data, cache=str(tmp_path / "cache"))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_9_and_two_at_once(tmp_path, data):
    killed = start(tmp_path, data)
    while not list(tmp_path.glob("cache/*.tmp/ids.bin")):
        assert killed.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list(tmp_path.glob("cache/*/meta.json"))
    both = [start(tmp_path, data) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["200\n"] * 2
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
