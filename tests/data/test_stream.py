import ast
import collections
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

import imitation_jax.data
from imitation_jax.data import rows, sharegpt, tokens
from imitation_jax.data.stream import Stream
from imitation_jax.tokenizers.chat import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

SHAPES = {"tokens": np.int32, "targets": np.int32, "loss_mask": np.float32, "positions": np.int32}
SHAPES |= {"segment_ids": np.int32}


def talk(n):
    random = np.random.default_rng(n)
    messages = []
    for _ in range(random.integers(1, 4)):
        for role in ("user", "assistant"):
            content = "".join(random.choice(list("abc "), random.integers(1, 60))) + "."
            messages.append({"role": role, "content": content})
    return {"id": f"d{n}", "source": "test", "messages": messages}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    (folder / "d.jsonl").write_text("".join(rows.line(talk(n)) for n in range(150)))
    (folder / "other.jsonl").write_text("".join(rows.line(talk(n)) for n in range(140)))
    return folder


@pytest.fixture
def stream(folder, tokenizer, template):
    def make(name="d.jsonl", **settings):
        settings = {"seq_len": 128, "batch_size": 8, "seed": 3, "epochs": 2} | settings
        return Stream(str(folder / name), tokenizer, template, cache_dir=str(folder / "cache"), **settings)

    return make


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def segments(batches):
    """How often each (tokens, targets, loss_mask) of a segment occurs, as bytes."""
    found = collections.Counter()
    for batch in batches:
        for row in range(len(batch["tokens"])):
            for segment in range(1, batch["segment_ids"][row].max() + 1):
                at = batch["segment_ids"][row] == segment
                assert np.array_equal(batch["positions"][row][at], np.arange(at.sum()))
                found[tuple(batch[name][row][at].tobytes() for name in ("tokens", "targets", "loss_mask"))] += 1
    return found


def expected_segments(tokenised, seq_len):
    found = collections.Counter()
    for ids, mask in tokenised:
        ids, mask = np.array(ids, np.int32), np.array(mask, np.float32)
        for begin in range(0, len(ids) - 1, seq_len):
            pairs = slice(begin, begin + seq_len)
            found[tuple(values[pairs].tobytes() for values in (ids[:-1], ids[1:], mask[1:]))] += 1
    return found


@pytest.mark.parametrize("packing", [True, False])
def test_every_pair_once_in_every_epoch(stream, template, packing):
    s = stream(packing=packing)
    wanted = expected_segments([template.tokenize(talk(n)["messages"]) for n in range(150)], 128)
    batches = list(s.iterator())
    assert len(batches) == s.total_steps == 2 * s.steps_per_epoch
    assert s.steps_per_epoch == -(-s.stats["rows"] // 8)
    for batch in batches:
        assert {name: value.dtype for name, value in batch.items()} == SHAPES
        assert all(value.shape == (8, 128) and type(value) is np.ndarray for value in batch.values())
        padding = batch["segment_ids"] == 0
        assert not any(batch[name][padding].any() for name in SHAPES)
    epochs = batches[: s.steps_per_epoch], batches[s.steps_per_epoch :]
    assert [segments(epoch) == wanted for epoch in epochs] == [True, True]
    assert not equal(epochs[0][0], epochs[1][0])
    for epoch in epochs:
        assert sum(batch["loss_mask"].sum() for batch in epoch) == s.stats["loss_tokens"]
        # The last batch is filled up with whole rows of padding.
        used = sum(batch["segment_ids"].any(axis=1).sum() for batch in epoch)
        assert used == s.stats["rows"] and all(batch["segment_ids"].any(axis=1).all() for batch in epoch[:-1])
    pairs = sum(len(ids) // 4 * count for (ids, _, _), count in wanted.items())
    assert s.stats["padding_share"] == pytest.approx(1 - pairs / (s.stats["rows"] * 128))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_global_batches(stream, hosts):
    parts = [stream(process_index=i, process_count=hosts) for i in range(hosts)]
    for whole, *some in zip(stream().iterator(), *(part.iterator() for part in parts), strict=True):
        assert equal(whole, {name: np.concatenate([part[name] for part in some]) for name in whole})


def test_restart_at_every_step_and_with_workers(stream):
    s = stream()
    wanted = list(s.iterator())
    for step in range(s.total_steps + 1):
        rest = list(s.iterator(step))
        assert len(rest) == s.total_steps - step and all(map(equal, rest, wanted[step:]))
    with_workers = stream(workers=2).iterator(3)
    assert all(equal(a, b) for a, b in zip(with_workers, wanted[3:], strict=True))


def test_state_is_json_and_crosses_workers_and_hosts(stream):
    wanted = list(stream().iterator())
    iterator = stream(workers=1).iterator()
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    assert len(json.dumps(state)) < 100
    other = stream(process_count=2, epochs=3).iterator()
    next(other)
    other.set_state(state)
    assert np.array_equal(next(other)["tokens"], wanted[5]["tokens"][:4])
    assert other.get_state()["step"] == 6


def test_state_of_other_data_is_refused(stream):
    state = stream().iterator(1).get_state()
    for changed in ({"name": "other.jsonl"}, {"seed": 4}, {"seq_len": 64}, {"batch_size": 4}, {"packing": False}):
        with pytest.raises(ValueError, match="the data is not what the checkpoint was trained on"):
            stream(**changed).iterator().set_state(state)


def test_bad_sizes_are_one_clear_line(stream):
    with pytest.raises(ValueError, match="^batch_size 8 does not divide by the 3 processes$"):
        stream(process_count=3)
    for name in ("seq_len", "batch_size", "epochs"):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1"):
            stream(**{name: 0})
    with pytest.raises(ValueError, match="seed must not be negative"):
        stream(seed=-1)
    with pytest.raises(ValueError, match="outside of this run's"):
        stream().iterator(10**6)


def test_an_unfinished_iterator_ends_without_words(folder, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from imitation_jax.data.stream import Stream\n"
        "class Chat:\n"
        "    fingerprint = 'x'\n"
        "    def tokenize(self, messages):\n"
        "        return [1, 2, 3], [0, 1, 1]\n"
        "if __name__ == '__main__':\n"
        f"    s = Stream({str(folder / 'd.jsonl')!r}, Chat, Chat(), seq_len=32, batch_size=2, seed=0, epochs=9,\n"
        f"               workers=1, cache_dir={str(tmp_path)!r})\n"
        "    iterator = s.iterator()\n"
        "    next(iterator)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(imitation_jax.data.__file__).parents[2])}
    command = [sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment)
    assert done.stderr == ""


def test_jax_comes_with_grain_alone():
    package = Path(imitation_jax.data.__file__).parent
    for file in package.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(str(name).split(".")[0] in ("jax", "flax") for name in names), file
    modules = sorted({file.stem for file in package.glob("*.py")} - {"stream", "__init__"})
    code = "import sys;" + "".join(f"import imitation_jax.data.{module};" for module in modules)
    subprocess.run([sys.executable, "-c", f"{code} assert 'jax' not in sys.modules"], check=True)
    code = "import sys, grain; known = set(sys.modules); import imitation_jax.data.stream;"
    code += "assert not [name for name in set(sys.modules) - known if name.split('.')[0] in ('jax', 'flax')]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def sample(lent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharegpt")
    read = sharegpt.read([str(lent("sharegpt/sharegpt_sample.jsonl.gz"))])
    (folder / "d.jsonl").write_text("".join(rows.line(item) for _, item in read if isinstance(item, dict)))
    return folder


def test_lent_sample_every_pair_exactly_once(sample):
    # Words as tokens: real text and lengths, in a fraction of the time that a language model's tokenizer takes.
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = (m["content"] for line in open(sample / "d.jsonl") for m in json.loads(line)["messages"])
    special = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=30_000, special_tokens=special))
    tokenizer = Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})
    template = load_template("lineage", tokenizer)
    source = str(sample / "d.jsonl"), tokenizer, template
    cache = tokens.load(*source, cache_dir=str(sample / "cache"))
    wanted = [(cache.ids[a:b], cache.mask[a:b]) for a, b in itertools.pairwise(cache.offsets)]
    s = Stream(*source, seq_len=2048, batch_size=32, seed=0, epochs=1, cache_dir=str(sample / "cache"))
    batches = list(s.iterator())
    assert segments(batches) == expected_segments(wanted, 2048)
    assert sum(batch["loss_mask"].sum() for batch in batches) == cache.mask.sum() == s.stats["loss_tokens"]


@pytest.mark.slow
def test_lent_sample_padding(sample, smollm2_gguf):
    tokenizer = load_tokenizer(smollm2_gguf)
    template = load_template("model", tokenizer)

    def stats(packing):
        settings = {"seq_len": 2048, "batch_size": 32, "seed": 0, "epochs": 1, "cache_dir": str(sample / "cache")}
        return Stream(str(sample / "d.jsonl"), tokenizer, template, packing=packing, **settings).stats

    packed, unpacked = stats(True), stats(False)
    assert packed["padding_share"] < 0.01
    assert unpacked["rows"] > 1.7 * packed["rows"]
