"""A tokenizer of single bytes with the plain template: real classes, no files."""

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.fixture(scope="session")
def template(tokenizer):
    return load_template("plain", tokenizer)
