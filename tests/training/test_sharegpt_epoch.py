"""An epoch of real dialogues: each is seen exactly once, and five kills change no bit of what is measured."""

import collections
import json
import random
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.input import token_cache
from imitation_jax.data.input.stream import Stream
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, save_model
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

EXACT = ("step", "loss", "accuracy", "grad_norm", "learning_rate", "loss_tokens", "padding_share", "skipped")
BATCH, SEQ_LEN = 32, 2048


def records(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: record[key] for key in EXACT} for record in map(json.loads, lines)]


@pytest.fixture(scope="module")
def prepared(lent, command, tmp_path_factory):
    out = tmp_path_factory.mktemp("sharegpt") / "prepared"
    sample = lent("sharegpt/sharegpt_sample.jsonl.gz")
    result = command("prepare", "--config=configs/data/sharegpt.py", f"--config.input={sample}", f"--output={out}")
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def student(prepared, tiny_tokenizer, tmp_path_factory):
    """One layer, one head, and 2,048 tokens: logits over a real vocabulary would take twenty minutes."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    texts = (
        message["content"]
        for line in (prepared / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()[::10]
        for message in json.loads(line)["messages"]
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(backend, load_tokenizer(tiny_tokenizer).config)
    config = llama.LlamaConfig(2048, 16, 32, 1, 1, 1, 16, SEQ_LEN, tie_word_embeddings=True)
    params = decoder.init(config, jax.random.key(0))
    folder = tmp_path_factory.mktemp("student")
    template = load_template("model", tokenizer)
    save_model(LoadedModel(llama, config, params, tokenizer, template), f"hf:{folder}")
    return folder


@pytest.mark.slow
def test_an_epoch_survives_five_kills(command, prepared, student, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("from imitation_jax.training.config import get_config as get_config\n")
    keys = {
        "data.path": prepared,
        "data.seq_len": SEQ_LEN,
        "batch_size": BATCH,
        "model.init": f"hf:{student}",
        "evaluate.every": 0,
        "checkpoint.every": 5,
        "optimizer.learning_rate": 1e-2,
        "remat": "none",
    }
    flags = [f"--config={config}", *(f"--config.{key}={value}" for key, value in keys.items())]

    def start(workdir):
        with open(tmp_path / "log.txt", "w") as log:
            return command.start("train", *flags, f"--workdir={workdir}", quick=False, stdout=log, stderr=log)

    def log():
        return (tmp_path / "log.txt").read_text()

    began = time.monotonic()
    whole = tmp_path / "whole"
    assert start(whole).wait() == 0, log()
    wanted = records(whole)
    seconds = time.monotonic() - began

    # Every block of every dialogue is in one batch, once, and the run took those batches.
    tokenizer = load_tokenizer(student)
    template = load_template("model", tokenizer)
    cache = tmp_path / "tokens"
    stream = Stream(
        str(prepared), tokenizer, template, seq_len=SEQ_LEN, batch_size=BATCH, seed=0, epochs=1, cache_dir=str(cache)
    )
    assert len(wanted) == stream.total_steps and stream.stats["padding_share"] <= 0.01
    blocks = collections.Counter()
    for _, dialogue in token_cache.read(str(prepared)):
        assert not isinstance(dialogue, Rejected)
        ids, mask = (np.array(array, np.int64) for array in template.tokenize(dialogue["messages"]))
        for at in range(0, len(ids) - 1, SEQ_LEN):
            inputs, outputs = slice(at, min(at + SEQ_LEN, len(ids) - 1)), slice(at + 1, at + SEQ_LEN + 1)
            blocks[ids[inputs].tobytes() + ids[outputs].tobytes() + mask[outputs].tobytes()] += 1
    for step, record in enumerate(wanted):
        batch = stream[step]
        assert record["loss_tokens"] == batch["loss_mask"].sum()
        for row in range(BATCH):
            for segment in range(1, batch["segment_ids"][row].max() + 1):
                inside = batch["segment_ids"][row] == segment
                names = ("tokens", "targets", "loss_mask")
                blocks[b"".join(batch[name][row][inside].astype(np.int64).tobytes() for name in names)] -= 1
    assert not any(blocks.values())
    assert sum(record["loss_tokens"] for record in wanted) == stream.stats["loss_tokens"]
    assert wanted[-1]["loss"] < wanted[0]["loss"] - 0.5

    broken = tmp_path / "broken"
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed).sample(range(6, len(wanted) - 4), 5)
    in_a_save = random.Random(seed).randrange(5)
    killed = []
    for number, moment in enumerate(sorted(moments)):
        process = start(broken)
        while len(records(broken)) < moment:
            assert process.poll() is None, log()
            time.sleep(0.01)
        saving = number == in_a_save
        while saving and not any(broken.glob("checkpoints/*tmp*")):
            assert process.poll() is None, log()
        process.kill()
        process.wait()
        assert not saving or any(broken.glob("checkpoints/*tmp*")), "the save was faster than the kill"
        kept = records(broken)
        assert kept == wanted[: len(kept)], f"kill {number} of seed {seed}"
        killed.append((len(kept), "while saving" if saving else ""))
    assert start(broken).wait() == 0, log()
    assert "resumed from step" in log()
    assert records(broken) == wanted, f"seed {seed}, killed at {killed}"
    print(f"{len(wanted)} steps, {stream.stats}, undisturbed {seconds:.0f} s, killed at {killed}, seed {seed}")
