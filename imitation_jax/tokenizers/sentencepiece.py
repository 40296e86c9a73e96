"""Sentencepiece `.model` files -> Tokenizer: BPE with byte fallback (LLaMA) and unigram models."""

from pathlib import Path
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, models, normalizers

from imitation_jax.tokenizers.tokenizer import Tokenizer, set_metaspace, set_post_processor

# sentencepiece_model.proto; GGUF's tokenizer.ggml.token_type uses the same numbers
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
UNIGRAM, BPE = 1, 2
Piece = tuple[str, float, int]  # text, score (a log probability, or minus the rank of its merge), type


def load_sentencepiece(path: Path, config: dict[str, Any] | None = None) -> Tokenizer:
    """Reads a sentencepiece model.

    Args:
      path: the `.model` file.
      config: content of a `tokenizer_config.json`; without `add_bos_token` no BOS is added by
        `add_special_tokens=True`, as in transformers 5 (version 4 added one).

    Raises:
      ValueError: the file is no sentencepiece model, or neither BPE nor unigram.
    """
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path}: not a sentencepiece model") from error
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if not model.pieces:
        raise ValueError(f"{path}: not a sentencepiece model: it has no pieces")
    if trainer.model_type not in (UNIGRAM, BPE):
        kind = sentencepiece_model_pb2.TrainerSpec.ModelType.Name(trainer.model_type)
        raise ValueError(f"{path}: sentencepiece model_type {kind} is not supported: BPE and UNIGRAM are")
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    tokens = {"unk_token": trainer.unk_id, "bos_token": trainer.bos_id, "eos_token": trainer.eos_id}
    tokens["pad_token"] = trainer.pad_id
    config = {key: pieces[i][0] for key, i in tokens.items() if 0 <= i < len(pieces)} | (config or {})
    if not normalizer.add_dummy_prefix:
        config = {"add_prefix_space": False} | config
    if normalizer.remove_extra_whitespaces:
        # "first" means the text's first character, and that is gone where leading spaces are removed.
        config = {"legacy": True} | config

    if trainer.model_type == BPE:
        backend = bpe_from_pieces(pieces, config, merges_by_id(pieces), trainer.byte_fallback)
    else:
        backend = _unigram(pieces, trainer.unk_id, trainer.byte_fallback, config)
    steps = [normalizers.Precompiled(normalizer.precompiled_charsmap)] if normalizer.precompiled_charsmap else []
    if normalizer.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    set_post_processor(backend, config)
    return Tokenizer(backend, config)


def merges_by_id(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Merges in the order of the ids of what they make: how transformers 5 rebuilds them from a `.model` file.

    Sentencepiece, and transformers reading the same vocabulary from a GGUF file, go by score (`merges_by_score`).
    In LLaMA's vocabulary the two orders differ for runs of spaces alone: "    x" is 4 spaces and "x" here, and
    3 spaces and " x" there.
    """
    return [(left, right) for _, left, right in _splits(pieces)]


def merges_by_score(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Merges by the score of what they make, the highest first: sentencepiece's own order."""
    ranked = sorted(_splits(pieces), key=lambda split: (split[0], len(split[1]), len(split[2])), reverse=True)
    return [(left, right) for _, left, right in ranked]


def _splits(pieces: list[Piece]) -> list[tuple[float, str, str]]:
    """(score, left, right) for every way to make a piece out of two: sentencepiece stores no merges."""
    vocab = {piece for piece, _, _ in pieces}
    return [
        (score, piece[:cut], piece[cut:])
        for piece, score, kind in pieces
        if kind == NORMAL
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]


def bpe_from_pieces(
    pieces: list[Piece], config: dict[str, Any], merges: list[tuple[str, str]], byte_fallback: bool = True
) -> tokenizers.Tokenizer:
    """A BPE tokenizer over pieces in id order; `config` as for `set_metaspace`."""
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    unknown = None if byte_fallback else config.get("unk_token")
    model = models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    backend = tokenizers.Tokenizer(model)
    set_metaspace(backend, config)
    add_listed_tokens(backend, pieces)
    return backend


def add_listed_tokens(backend: tokenizers.Tokenizer, pieces: list[Piece]) -> None:
    """Makes control pieces special tokens and user-defined pieces added tokens: both are matched whole in a text."""
    for wanted in (CONTROL, USER_DEFINED):
        special = wanted == CONTROL
        tokens = [AddedToken(p, normalized=False, special=special) for p, _, kind in pieces if kind == wanted]
        if special:
            backend.add_special_tokens(tokens)
        else:
            backend.add_tokens(tokens)


def _unigram(pieces: list[Piece], unk_id: int, byte_fallback: bool, config: dict[str, Any]) -> tokenizers.Tokenizer:
    scores = [(piece, score) for piece, score, _ in pieces]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=unk_id, byte_fallback=byte_fallback))
    set_metaspace(backend, config)
    add_listed_tokens(backend, pieces)
    return backend
