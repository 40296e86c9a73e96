"""Ids against the committed oracles (made by make_oracles.py), the files we write, worker processes, bad input."""

import json
import multiprocessing
import pickle
import time
from pathlib import Path

import pytest
from make_oracles import TEXTS

from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

ORACLES = json.loads(Path(__file__).with_name("oracles.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["llama", "smollm2", "gpt2"])
def kind(request):
    return request.param, request.getfixturevalue(request.param)


def test_ids_equal_the_oracles(kind):
    name, tokenizer = kind
    for text, expected in zip(TEXTS, ORACLES[name], strict=True):
        assert tokenizer.encode(text) == expected, repr(text)
    assert tokenizer.encode_batch(TEXTS) == ORACLES[name]


def test_properties(llama, smollm2, gpt2):
    assert (llama.vocab_size, llama.bos_id, llama.eos_id, llama.pad_id) == (32000, 1, 2, None)
    assert llama.special_ids == {0, 1, 2}
    assert (smollm2.vocab_size, smollm2.bos_id, smollm2.eos_id, smollm2.pad_id) == (49152, 1, 2, 2)
    assert smollm2.special_ids == set(range(17))
    assert (gpt2.vocab_size, gpt2.bos_id, gpt2.eos_id, gpt2.pad_id) == (50257, 50256, 50256, None)
    assert gpt2.special_ids == {50256}
    assert "<|im_start|>" in smollm2.chat_template
    assert llama.token_to_id("</s>") == 2
    assert llama.token_to_id("no such piece") is None


def test_decode_inverts_encode(kind):
    _, tokenizer = kind
    for text in TEXTS:
        if not any(token in text for token in (*tokenizer.special_token_texts, "▁")) and not text.startswith(" "):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = [tokenizer.bos_id, *tokenizer.encode("Hello"), tokenizer.eos_id]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "Hello"


def test_offsets_cover_the_text(kind):
    _, tokenizer = kind
    for text in TEXTS:
        ids, offsets = tokenizer.encode_with_offsets(text)
        assert ids == tokenizer.encode(text)
        assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
        covered = {i for start, end in offsets for i in range(start, end)}
        assert covered == set(range(len(text))), repr(text)


def test_text_that_follows_other_text_gets_no_prefix_space(llama, smollm2):
    ids, offsets = llama.encode_with_offsets("Hello there", follows=True)
    assert llama.decode(llama.encode("x") + ids) == "xHello there"
    assert (offsets[0][0], offsets[-1][1]) == (0, 11)
    assert smollm2.encode_with_offsets("\nHello", follows=True) == smollm2.encode_with_offsets("\nHello")


def test_files_round_trip(kind, tmp_path):
    _, tokenizer = kind
    tokenizer.save(tmp_path)
    for copy in (load_tokenizer(tmp_path), Tokenizer.from_files(tokenizer.files())):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.chat_template == tokenizer.chat_template
        assert copy.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
        assert copy.encode("x", add_special_tokens=True) == tokenizer.encode("x", add_special_tokens=True)
    assert not list(tmp_path.glob("*.tmp"))


def test_fingerprint_sees_the_template_and_the_vocabulary(llama, smollm2):
    files = llama.files()
    config = json.loads(files["tokenizer_config.json"]) | {"chat_template": "x"}
    assert Tokenizer.from_files(files | {"tokenizer_config.json": json.dumps(config).encode()}).fingerprint not in (
        llama.fingerprint,
        smollm2.fingerprint,
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(llama, method):
    expected = llama.encode_batch(TEXTS)  # the parent's thread pool has run before the fork
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(llama.encode_batch, (TEXTS,)).get(timeout=60) == expected
    assert pickle.loads(pickle.dumps(llama)).encode_batch(TEXTS) == expected


def test_loads_llama_in_under_a_second(lent):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load_tokenizer(lent("tokenizers/llama_tokenizer.model"))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2_files(lent, tmp_path, names):
    for source, name in zip(("gpt2_encoder.json", "gpt2_vocab.bpe"), names, strict=True):
        (tmp_path / name).write_bytes(lent(f"tokenizers/{source}").read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 50257
    assert tokenizer.bos_id == tokenizer.eos_id == 50256
    # Known ids of GPT-2 (its own README's example, and the end of text written in the text).
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("  a<|endoftext|>") == [220, 257, 50256]


def test_folder_settings(llama, tmp_path):
    llama.save(tmp_path)
    config = {"eos_token": {"content": "</s>", "__type": "AddedToken"}, "tokenizer_class": "PreTrainedTokenizerFast"}
    config["added_tokens_decoder"] = {"32000": {"content": "<think>", "special": False, "normalized": False}}
    config["chat_template"] = [{"name": "tools", "template": "b"}, {"name": "default", "template": "a"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>", "eos_token": "<unk>"}')
    (tmp_path / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": [0, 2]}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 32001)
    assert tokenizer.encode("<think><pad>") == [32000, 32001]
    assert tokenizer.vocab_size == 32002
    assert 32000 not in tokenizer.special_ids
    assert tokenizer.chat_template == "a"
    (tmp_path / "chat_template.jinja").write_text("from its file")
    assert load_tokenizer(tmp_path).chat_template == "from its file"


def test_llama_class_rebuilds_what_tokenizer_json_says_of_spaces(llama, tmp_path):
    # The tokenizer.json published with LLaMA 2; transformers 5 gives these ids for these settings.
    llama.save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    saved |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    for config, expected in (
        ({"tokenizer_class": "LlamaTokenizer"}, [259, 2918, 2, 2918]),
        ({"tokenizer_class": "LlamaTokenizer", "legacy": True}, [259, 2918, 2, 7251]),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, [259, 7251, 2, 7251]),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        assert load_tokenizer(tmp_path).encode("  hi</s>hi") == expected


def test_bos_flag_counts_where_there_is_no_tokenizer_json(lent, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(lent("tokenizers/llama_tokenizer.model").read_bytes())
    assert load_tokenizer(tmp_path).encode("hi", add_special_tokens=True) == [7251]
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true, "add_eos_token": true}')
    assert load_tokenizer(tmp_path).encode("hi", add_special_tokens=True) == [1, 7251, 2]
    assert load_tokenizer(tmp_path).encode("hi") == [7251]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", "tokenizer.json: not JSON"),
        ("tokenizer.json", b"[]", "tokenizer.json: expected a JSON object, found a list"),
        ("tokenizer.json", b"{}", "tokenizer.json: not a tokenizer.json"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json: not JSON"),
        ("tokenizer.model", b"no protobuf", "tokenizer.model: not a sentencepiece model"),
        ("tokenizer.model", b"", "tokenizer.model: not a sentencepiece model"),
        ("vocab.txt", b"", "not a tokenizer"),
        ("model.gguf", b"GGUF", "model.gguf: cannot be read as GGUF"),
        ("model.gguf", b"", "model.gguf: cannot be read as GGUF"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_tokenizer(tmp_path / name)
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_settings_file(llama, tmp_path):
    llama.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{,}")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: not JSON"):
        load_tokenizer(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer.json"):
        load_tokenizer(tmp_path)
