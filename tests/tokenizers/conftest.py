"""The three tokenizer kinds, and the real texts that they are compared on."""

import gzip
import json
import shutil

import pytest

from imitation_jax.tokenizers.tokenizer import load_tokenizer

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


@pytest.fixture(scope="session")
def llama(lent):
    return load_tokenizer(lent("tokenizers/llama_tokenizer.model"))


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf):
    return load_tokenizer(smollm2_gguf)


@pytest.fixture(scope="session")
def gpt2_folder(lent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copyfile(lent("tokenizers/gpt2_encoder.json"), folder / "vocab.json")
    shutil.copyfile(lent("tokenizers/gpt2_vocab.bpe"), folder / "merges.txt")
    return folder


@pytest.fixture(scope="session")
def gpt2(gpt2_folder):
    return load_tokenizer(gpt2_folder)


@pytest.fixture(scope="session")
def sharegpt(lent):
    """Every conversation of the lent sample that has turns, as messages."""
    with gzip.open(lent("sharegpt/sharegpt_sample.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line)["conversations"] for line in lines]
    return [[{"role": ROLES.get(t["from"], "user"), "content": t["value"]} for t in row] for row in rows if row]


@pytest.fixture(scope="session")
def sharegpt_texts(sharegpt):
    return [message["content"] for messages in sharegpt for message in messages]
