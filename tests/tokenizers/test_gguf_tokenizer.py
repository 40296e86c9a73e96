"""Tokenizers out of GGUF files that the test writes."""

import gguf
import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from imitation_jax.tokenizers.gguf import PATTERNS, load_gguf

BYTES = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]


def write(path, **metadata):
    """A GGUF file without tensors; keys of tokenizer.ggml.*, the type taken from the value."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in metadata.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def byte_level(path, **metadata):
    tokens = [*BYTES, "11", "111", "ĠĠ", "<|end|>", "<think>"]
    types = [1] * (len(tokens) - 2) + [3, 4]
    merges = ["1 1", "11 1", "Ġ Ġ"]
    return write(path, **{"model": "gpt2", "tokens": tokens, "token_type": types, "merges": merges} | metadata)


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["x", "Ġ", "Ġ", "11", "11"]),  # " 1111" is one word
        ("default", ["x", "Ġ", "Ġ", "11", "11"]),
        ("llama-bpe", ["x", "Ġ", "Ġ", "111", "1"]),  # a word has three digits at most
        ("qwen2", ["x", "Ġ", "Ġ", "1", "1", "1", "1"]),
    ],
)
def test_pre_tokenizer(tmp_path, pre, pieces):
    tokenizer = load_gguf(byte_level(tmp_path / "a.gguf", pre=pre))
    ids = tokenizer.encode("x  1111")
    assert [tokenizer.backend.id_to_token(i) for i in ids] == pieces
    assert tokenizer.decode(ids) == "x  1111"


def test_listed_tokens_are_matched_whole(tmp_path):
    tokenizer = load_gguf(byte_level(tmp_path / "a.gguf", eos_token_id=99, add_eos_token=True))
    assert tokenizer.encode("a<think><|end|>") == [tokenizer.token_to_id("a"), 100, 99]
    assert tokenizer.special_ids == {99}
    assert tokenizer.eos_id == 99
    assert tokenizer.encode("a", add_special_tokens=True)[-1] == 99


def test_sentencepiece_kind_equals_sentencepiece(lent, tmp_path, sharegpt_texts):
    path = lent("tokenizers/llama_tokenizer.model")
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    tokens, scores, types = ([getattr(p, key) for p in model.pieces] for key in ("piece", "score", "type"))
    file = write(tmp_path / "a.gguf", model="llama", tokens=tokens, scores=scores, token_type=types, bos_token_id=1)
    tokenizer = load_gguf(file)
    texts = sharegpt_texts[:800] + ["a\n    four spaces"]
    texts = [text for text in texts if not text.startswith((" ", "▁")) and "<s>" not in text and "</s>" not in text]
    theirs = SentencePieceProcessor(model_file=str(path)).encode(texts)
    pairs = enumerate(zip(tokenizer.encode_batch(texts), theirs, strict=True))
    assert [i for i, (ours, theirs) in pairs if ours != theirs] == []
    assert tokenizer.encode("hi", add_special_tokens=True)[0] == 1  # llama.cpp's default for this kind


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"pre": "klingon"}, r"a\.gguf: tokenizer\.ggml\.pre 'klingon' is not supported"),
        ({"model": "bert"}, r"a\.gguf: tokenizer\.ggml\.model 'bert' is not supported"),
        ({"eos_token_id": 5000}, r"a\.gguf: tokenizer\.ggml\.eos_token_id is 5000, but there are 101 tokens"),
        ({"token_type": [1]}, r"a\.gguf: tokenizer\.ggml\.token_type has 1 entries for 101 tokens"),
        ({"merges": ["Q QQ"]}, r"a\.gguf: tokenizer\.ggml\.merges"),
    ],
)
def test_bad_metadata_is_named(tmp_path, metadata, message):
    with pytest.raises(ValueError, match=message):
        load_gguf(byte_level(tmp_path / "a.gguf", **metadata))


def test_no_tokenizer_inside(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gguf: holds no tokenizer"):
        load_gguf(write(tmp_path / "a.gguf"))
    assert {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"} <= set(PATTERNS)
