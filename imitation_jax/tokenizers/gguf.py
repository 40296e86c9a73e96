"""Reads the tokenizer inside a GGUF file (`tokenizer.ggml.*`) as transformers 5 reads it."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from imitation_jax.tokenizers.sentencepiece import Piece, add_listed_tokens, bpe_from_pieces, merges_by_score
from imitation_jax.tokenizers.tokenizer import Tokenizer, one_line, set_post_processor

# How text is cut before the merges: the patterns that GPT-2, Llama 3 and Qwen 2 were published with.
GPT2 = None  # the ByteLevel pre-tokenizer's own
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# smollm: transformers cuts with GPT-2's pattern, and so does this; the tokenizer.json published with that model first
# cuts digits off one by one, which differs only in runs of white space before a digit.
PATTERNS = {
    "default": GPT2,
    "gpt-2": GPT2,
    "smollm": GPT2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
}
NAMED_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


class _Reader(gguf.GGUFReader):
    """Slices a plain array over the mapped file: a memmap's hundred thousands of small slices take twice as long."""

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, mapped: np.memmap) -> None:
        self._data = np.asarray(mapped)


# A reader takes seconds over its vocabulary; while the model is read, the tokenizer is read by the same one.
_readers: weakref.WeakValueDictionary[tuple, gguf.GGUFReader] = weakref.WeakValueDictionary()


def open_reader(path: Path) -> gguf.GGUFReader:
    """The file's metadata and tensors.

    Raises:
      FileNotFoundError: no such file.
      ValueError: cut off, or no GGUF file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; gguf: takes a GGUF file")
    key = (path.resolve(), path.stat().st_size, path.stat().st_mtime_ns)
    reader = _readers.get(key)
    if reader is None:
        try:
            reader = _Reader(path)
        except Exception as error:  # the library raises whatever its parsing of a broken file runs into
            raise ValueError(f"{path}: cannot be read as GGUF ({one_line(error)}); is the file whole?") from None
        _readers[key] = reader
    return reader


def load_gguf(path: Path) -> Tokenizer:
    """Reads the tokenizer of a GGUF file: `tokenizer.ggml.model` gpt2 (byte-level BPE) or llama (sentencepiece).

    Raises:
      ValueError: no GGUF file, no tokenizer in it, or a model or pre-tokenizer that is not known here.
    """
    fields = open_reader(path).fields

    def read(key: str) -> Any:
        return fields[key].contents() if key in fields else None

    tokens = read("tokenizer.ggml.tokens")
    if not tokens:
        raise ValueError(f"{path}: holds no tokenizer (tokenizer.ggml.tokens is missing)")
    kinds = read("tokenizer.ggml.token_type") or [1] * len(tokens)
    scores = read("tokenizer.ggml.scores") or [0.0] * len(tokens)
    merges = read("tokenizer.ggml.merges")
    merges = [tuple(merge.split(" ")) for merge in merges or []]
    for key, values in (("token_type", kinds), ("scores", scores)):
        if len(values) != len(tokens):
            raise ValueError(f"{path}: tokenizer.ggml.{key} has {len(values)} entries for {len(tokens)} tokens")
    pieces = list(zip(tokens, scores, kinds, strict=True))
    known = set(tokens)
    if bad := next((m for m in merges if len(m) != 2 or not {*m, "".join(m)} <= known), None):
        raise ValueError(
            f"{path}: tokenizer.ggml.merges holds {' '.join(bad)!r}, which does not join two tokens into one"
        )

    config = _config(read, tokens, path)
    kind = read("tokenizer.ggml.model")
    if kind == "gpt2":
        pre = read("tokenizer.ggml.pre") or "default"
        if pre not in PATTERNS:
            known = ", ".join(PATTERNS)
            raise ValueError(f"{path}: tokenizer.ggml.pre {pre!r} is not supported (known: {known})")
        backend = _byte_level(pieces, merges, PATTERNS[pre])
    elif kind == "llama":
        config.setdefault("add_bos_token", True)
        if (prefix := read("tokenizer.ggml.add_space_prefix")) is not None:
            config["add_prefix_space"] = bool(prefix)
        backend = bpe_from_pieces(pieces, config, merges or merges_by_score(pieces))
    else:
        raise ValueError(f"{path}: tokenizer.ggml.model {kind!r} is not supported (known: gpt2, llama)")
    set_post_processor(backend, config)
    return Tokenizer(backend, config)


def _config(read: Callable[[str], Any], tokens: Sequence[str], path: Path) -> dict[str, Any]:
    """The metadata as a `tokenizer_config.json`."""
    config: dict[str, Any] = {}
    for name, key in NAMED_IDS.items():
        i = read(f"tokenizer.ggml.{key}")
        if i is not None:
            if not 0 <= i < len(tokens):
                raise ValueError(f"{path}: tokenizer.ggml.{key} is {i}, but there are {len(tokens)} tokens")
            config[name] = tokens[i]
    for name in ("add_bos_token", "add_eos_token"):
        if (flag := read(f"tokenizer.ggml.{name}")) is not None:
            config[name] = bool(flag)
    if (template := read("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    return config


def _byte_level(pieces: list[Piece], merges: list[tuple[str, str]], pattern: str | None) -> tokenizers.Tokenizer:
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        backend.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    add_listed_tokens(backend, pieces)
    return backend
