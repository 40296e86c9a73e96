"""Sentencepiece `.model` files -> Tokenizer: BPE with byte fallback (LLaMA) and unigram models."""

from pathlib import Path
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from imitation_jax.tokenizers.tokenizer import Tokenizer, set_metaspace

# sentencepiece_model.proto; GGUF's tokenizer.ggml.token_type uses the same numbers
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
UNIGRAM, BPE = 1, 2


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
    if not model.pieces or trainer.model_type not in (UNIGRAM, BPE):
        kind = sentencepiece_model_pb2.TrainerSpec.ModelType.Name(trainer.model_type) if model.pieces else "empty"
        raise ValueError(f"{path}: sentencepiece model_type {kind} is not supported: BPE and UNIGRAM are")
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    tokens = {"unk_token": trainer.unk_id, "bos_token": trainer.bos_id, "eos_token": trainer.eos_id}
    tokens["pad_token"] = trainer.pad_id
    config = {key: pieces[i][0] for key, i in tokens.items() if 0 <= i < len(pieces)} | (config or {})
    if not normalizer.add_dummy_prefix:
        config = {"add_prefix_space": False} | config

    if trainer.model_type == BPE:
        backend = bpe_from_pieces(pieces, config, byte_fallback=trainer.byte_fallback)
    else:
        backend = _unigram(pieces, trainer.unk_id, trainer.byte_fallback, config)
    steps = [normalizers.Precompiled(normalizer.precompiled_charsmap)] if normalizer.precompiled_charsmap else []
    if normalizer.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    return Tokenizer(backend, config)


def bpe_from_pieces(
    pieces: list[tuple[str, float, int]],
    config: dict[str, Any],
    merges: list[tuple[str, str]] | None = None,
    byte_fallback: bool = True,
) -> tokenizers.Tokenizer:
    """A BPE tokenizer over sentencepiece's (piece, score, type), in id order.

    Sentencepiece keeps no merges: it joins whatever neighbours form the piece of the highest score. So every split of
    a piece into two pieces is a merge, ranked by the score of the whole.
    """
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    if merges is None:
        ranked = [
            (-score, vocab[piece], cut, piece)
            for piece, score, kind in pieces
            if kind == NORMAL
            for cut in range(1, len(piece))
            if piece[:cut] in vocab and piece[cut:] in vocab
        ]
        merges = [(piece[:cut], piece[cut:]) for _, _, cut, piece in sorted(ranked)]
    unknown = None if byte_fallback else config.get("unk_token")
    model = models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    backend = tokenizers.Tokenizer(model)
    set_metaspace(backend, config)
    add_listed_tokens(backend, pieces)
    return backend


def add_listed_tokens(backend: tokenizers.Tokenizer, pieces: list[tuple[str, float, int]]) -> None:
    """Makes control pieces special tokens and user-defined pieces added tokens: both are matched whole in a text."""
    for wanted in (CONTROL, USER_DEFINED):
        special = wanted == CONTROL
        tokens = [AddedToken(p, normalized=False, special=special) for p, _, kind in pieces if kind == wanted]
        if special:
            backend.add_special_tokens(tokens)
        else:
            backend.add_tokens(tokens)


def _unigram(
    pieces: list[tuple[str, float, int]], unk_id: int, byte_fallback: bool, config: dict[str, Any]
) -> tokenizers.Tokenizer:
    scores = [(piece, score) for piece, score, _ in pieces]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=unk_id, byte_fallback=byte_fallback))
    set_metaspace(backend, config)
    add_listed_tokens(backend, pieces)
    return backend
