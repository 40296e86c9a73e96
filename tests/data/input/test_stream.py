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
from imitation_jax.core import json_rows
from imitation_jax.data.input import token_cache
from imitation_jax.data.input.mixture import Source
from imitation_jax.data.input.stream import Stream
from imitation_jax.data.sources import sharegpt
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

SHAPES = {"tokens": np.int32, "targets": np.int32, "loss_mask": np.float32, "positions": np.int32}
SHAPES |= {"segment_ids": np.int32}


def talk(n, letters="abc ", end="."):
    random = np.random.default_rng(n)
    messages = []
    for _ in range(random.integers(1, 4)):
        for role in ("user", "assistant"):
            content = "".join(random.choice(list(letters), random.integers(1, 60))) + end
            messages.append({"role": role, "content": content})
    return {"id": f"d{n}", "source": "test", "messages": messages}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    (folder / "d.jsonl").write_text("".join(json_rows.line(talk(n)) for n in range(150)))
    (folder / "other.jsonl").write_text("".join(json_rows.line(talk(n)) for n in range(140)))
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
        "from imitation_jax.data.input.stream import Stream\n"
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
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(str(name).split(".")[0] in ("jax", "flax") for name in names), file
    files = {file.relative_to(package).with_suffix("") for file in package.rglob("*.py")}
    modules = sorted(".".join(file.parts) for file in files if file.name not in ("stream", "beam", "__init__"))
    code = "import sys;" + "".join(f"import imitation_jax.data.{module};" for module in modules)  # beam is an extra
    subprocess.run([sys.executable, "-c", f"{code} assert 'jax' not in sys.modules"], check=True)
    code = "import sys, grain; known = set(sys.modules); import imitation_jax.data.input.stream;"
    code += "assert not [name for name in set(sys.modules) - known if name.split('.')[0] in ('jax', 'flax')]"
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------------------------------------
# Budgets and mixtures
# ----------------------------------------------------------------------------------------------------------------------


def few(n):
    return talk(1000 + n, "def ", "d")


@pytest.fixture(scope="module")
def mix(folder):
    """`mix(chat={...}, web={...})`: sources with these settings; a block's letters tell which one it is from."""
    (folder / "few.jsonl").write_text("".join(json_rows.line(few(n)) for n in range(60)))
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("xyz "), random.integers(30, 900))) + "z" for _ in range(100)]
    (folder / "web.jsonl").write_text("".join(json_rows.line({"text": text}) for text in texts))
    names = {"chat": "d.jsonl", "few": "few.jsonl", "web": "web.jsonl"}
    return lambda **given: {key: Source(str(folder / names[key]), **settings) for key, settings in given.items()}


@pytest.fixture
def mixed(folder, tokenizer, template, mix):
    def make(sources, **settings):
        settings = {"seq_len": 128, "batch_size": 8, "seed": 3, "epochs": 1} | settings
        return Stream(mix(**sources), tokenizer, template, cache_dir=str(folder / "cache"), **settings)

    return make


LETTERS = {"chat": "abc.", "few": "def", "web": "xyz"}
THREE = {"chat": {"epochs": 2}, "few": {"share": 0.2}, "web": {"share": 0.1}}


def by_dataset(batches, tokenizer):
    """name -> how often each segment of that dataset occurs."""
    letters = {tokenizer.encode(one)[0]: name for name, some in LETTERS.items() for one in some}
    found = {name: collections.Counter() for name in LETTERS}
    for key, count in segments(batches).items():
        (name,) = {letters[i] for i in np.frombuffer(key[0], np.int32).tolist() if i in letters}
        found[name][key] = count
    return found


@pytest.mark.parametrize("packing", [True, False])
def test_epochs_and_shares_are_exact(mixed, template, tokenizer, packing):
    s = mixed(THREE, packing=packing)
    batches = list(s.iterator())
    assert len(batches) == s.total_steps == s.steps_per_epoch
    # Every dialogue that counts in epochs is there twice.
    found = by_dataset(batches, tokenizer)
    wanted = expected_segments([template.tokenize(talk(n)["messages"]) for n in range(150)], 128)
    assert found["chat"] == wanted + wanted
    # The shares, counted in what the batches hold.
    pairs = {name: sum(len(key[0]) // 4 * n for key, n in some.items()) for name, some in found.items()}
    total = sum(pairs.values())
    for name, share in (("chat", 0.7), ("few", 0.2), ("web", 0.1)):
        assert abs(pairs[name] - share * total) <= 64  # half a row
        assert s.sources[name]["pairs"] == pairs[name] and s.sources[name]["share"] == pairs[name] / total
    assert s.sources["chat"]["epochs"] == 2 and s.sources["web"]["texts"] == 100
    # The small dataset goes round: all of it before any of it comes again.
    rounds = s.sources["few"]["epochs"]
    wanted = expected_segments([template.tokenize(few(n)["messages"]) for n in range(60)], 128)
    assert rounds > 1 and found["few"].keys() == wanted.keys()
    for key, count in wanted.items():
        assert int(rounds) * count <= found["few"][key] <= (int(rounds) + 1) * count
    loss_tokens = sum(batch["loss_mask"].sum() for batch in batches)
    assert loss_tokens == s.stats["loss_tokens"] == sum(stats["loss_tokens"] for stats in s.sources.values())
    assert sum(stats["loss_share"] for stats in s.sources.values()) == pytest.approx(1)


def test_a_dataset_s_rows_come_evenly_and_do_not_depend_on_the_others(mixed, stream, tokenizer):
    alone = [row for batch in stream(epochs=1).iterator() for row in batch["tokens"] if row.any()]
    batches = mixed({"chat": {}, "web": {"share": 0.3}}).iterator()
    beside = [row for batch in batches for row in batch["tokens"] if row.any()]
    is_text = np.array([np.isin(row, tokenizer.encode("xyz")).any() for row in beside])
    assert np.array_equal([row for row, text in zip(beside, is_text, strict=True) if not text], alone)
    proportion = np.arange(1, len(is_text) + 1) * is_text.mean()
    assert np.abs(np.cumsum(is_text) - proportion).max() <= 1.5


def test_the_next_epoch_goes_on_in_what_a_share_left(mixed, tokenizer):
    s = mixed({"chat": {}, "web": {"share": 0.1}}, epochs=3)
    batches = list(s.iterator())
    assert len(batches) == 3 * s.steps_per_epoch and 0 < s.sources["web"]["epochs"] < 1 / 3
    epochs = [by_dataset(batches[n * s.steps_per_epoch :][: s.steps_per_epoch], tokenizer) for n in range(3)]
    assert epochs[0]["chat"] == epochs[1]["chat"] == epochs[2]["chat"]
    together = epochs[0]["web"] + epochs[1]["web"] + epochs[2]["web"]
    assert max(count for key, count in together.items() if len(key[0]) > 40) == 1  # no text twice


def test_hosts_restarts_and_workers_change_nothing_of_a_mixture(mixed):
    sources = THREE | {"chat": {"epochs": 2, "token_budget": 5000}}
    whole = mixed(sources, epochs=2)
    wanted = list(whole.iterator())
    for step in range(0, whole.total_steps + 1, 3):
        assert all(map(equal, whole.iterator(step), wanted[step:]))
    parts = [mixed(sources, epochs=2, process_index=i, process_count=4).iterator() for i in range(4)]
    for batch, *some in zip(wanted, *parts, strict=True):
        assert equal(batch, {name: np.concatenate([part[name] for part in some]) for name in batch})
    iterator = mixed(sources, epochs=2, workers=2).iterator()
    assert all(equal(next(iterator), batch) for batch in wanted[:4])
    other = mixed(sources, epochs=2).iterator()
    other.set_state(json.loads(json.dumps(iterator.get_state())))
    assert all(map(equal, other, wanted[4:]))


@pytest.mark.parametrize(
    "changed", [{"few": {"share": 0.3}}, {"chat": {"epochs": 1}}, {"web": {"share": 0.1, "token_budget": 9000}}]
)
def test_the_state_of_another_mixture_is_refused(mixed, changed):
    state = mixed(THREE).iterator(1).get_state()
    with pytest.raises(ValueError, match="the data is not what the checkpoint was trained on .dialogues, token budget"):
        mixed(THREE | changed).iterator().set_state(state)


def test_budgets_are_nested_and_what_they_leave_out_is_counted(mixed):
    def kept(budget, seed):
        s = mixed({"chat": {"token_budget": budget}}, seed=seed, epochs=2)
        assert s.stats["tokens"] <= (budget or 10**9)
        assert s.stats["dialogues"] + s.stats["over_budget"] == 150
        assert s.stats["tokens"] + s.stats["over_budget_tokens"] == everything
        epochs = [segments(list(s.iterator())[n * s.steps_per_epoch :][: s.steps_per_epoch]) for n in range(2)]
        assert epochs[0] == epochs[1]
        assert sum(len(key[0]) // 4 * count for key, count in epochs[0].items()) == s.stats["pairs"]
        return epochs[0]

    everything = mixed({"chat": {}}).stats["tokens"]
    for seed in (0, 1):
        few, more, most, all_of_it = (kept(budget, seed) for budget in (1500, 3000, 9000, 0))
        assert few < more < most < all_of_it
        assert kept(everything, seed) == all_of_it
    assert kept(3000, 0) != kept(3000, 1)


@pytest.fixture(scope="module")
def sample(lent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharegpt")
    read = sharegpt.read([str(lent("sharegpt/sharegpt_sample.jsonl.gz"))])
    (folder / "d.jsonl").write_text("".join(json_rows.line(item) for _, item in read if isinstance(item, dict)))
    return folder


def test_lent_sample_every_pair_exactly_once(sample):
    # Words as tokens: real text and lengths, in a fraction of the time that a language model's tokenizer takes.
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = (m["content"] for line in open(sample / "d.jsonl") for m in json.loads(line)["messages"])
    special = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=30_000, special_tokens=special))
    tokenizer = Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})
    template = load_template("plain", tokenizer)
    source = str(sample / "d.jsonl"), tokenizer, template
    cache = token_cache.load(*source, cache_dir=str(sample / "cache"))
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
