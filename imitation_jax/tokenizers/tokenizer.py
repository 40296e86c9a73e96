"""Tokenizers of every file format behind one interface, the Rust `tokenizers` library underneath.

Ids equal those of Hugging Face transformers 5 for the same files. Where its versions disagree this follows version 5
and a comment at the place says so. Nothing here needs transformers or jax.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from imitation_jax.core.files import write_bytes

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class Tokenizer:
    """A `tokenizers.Tokenizer` with the settings of a `tokenizer_config.json` applied to it.

    It can be pickled, and be used in forked and spawned worker processes.

    Attributes:
      backend: the Rust tokenizer.
      config: the content of `tokenizer_config.json`.
      special_tokens: named special tokens that are set, such as {"eos_token": "</s>"}.
      chat_template: Jinja source, or None.
      vocab_size: one more than the largest id, added tokens included: the rows an embedding needs.
      bos_id, eos_id, pad_id: id or None.
      special_ids, special_token_texts: ids and spellings of all tokens marked special.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any] | None = None):
        """Takes `backend` over and changes it: special tokens that `config` names are added to it."""
        self.backend = backend
        self.config = dict(config or {})
        named = {key: _content(self.config[key]) for key in NAMED_TOKENS if self.config.get(key)}
        self.special_tokens: dict[str, str] = named
        self.chat_template = _default_template(self.config.get("chat_template"))
        backend.no_truncation()
        backend.no_padding()
        _add_tokens(backend, self.config)
        self.bos_id, self.eos_id, self.pad_id = (
            None if key not in named else backend.token_to_id(named[key])
            for key in ("bos_token", "eos_token", "pad_token")
        )
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        special = {i: token.content for i, token in backend.get_added_tokens_decoder().items() if token.special}
        self.special_ids = frozenset(special)
        self.special_token_texts = frozenset(special.values())

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of `text`. Special tokens written in the text become their ids, as in transformers."""
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """Ids of each text, encoded in parallel threads."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(self, text: str, follows: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the (start, end) of the characters of `text` that it covers, spaces included.

        Args:
          text: what to encode.
          follows: other text comes before, so sentencepiece's space before a text is left out.
        """
        lead = "\n" if follows and self._adds_prefix else ""
        # Unlike `encode`, a batch lets other threads of this process work meanwhile.
        (encoding,) = self.backend.encode_batch([lead + text], add_special_tokens=False)
        if not lead:
            return encoding.ids, encoding.offsets
        # A newline is a byte token that nothing merges with in a sentencepiece vocabulary, so it can be cut off again.
        skip = len(self.encode(lead))
        return encoding.ids[skip:], [(start - 1, end - 1) for start, end in encoding.offsets[skip:]]

    @cached_property
    def _adds_prefix(self) -> bool:
        return self.encode("a") != self.encode("\na")[len(self.encode("\n")) :]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids`; bytes that are not whole UTF-8 characters become U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        return self.backend.token_to_id(token)

    def files(self) -> dict[str, bytes]:
        """`tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer loads to the same ids."""
        # The plain class takes tokenizer.json as it stands; a named one (LlamaTokenizer) would rebuild parts of it.
        config = {key: value for key, value in self.config.items() if key not in ("tokenizer_class", "auto_map")}
        config |= {"tokenizer_class": "PreTrainedTokenizerFast"} | self.special_tokens
        config.setdefault("clean_up_tokenization_spaces", False)
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return {
            "tokenizer.json": self.backend.to_str(pretty=False).encode(),
            "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True).encode(),
        }

    @classmethod
    def from_files(cls, files: dict[str, bytes]) -> "Tokenizer":
        """The inverse of `files()`. Raises ValueError where a file is missing or malformed."""
        if "tokenizer.json" not in files:
            raise ValueError(f"tokenizer files: tokenizer.json is missing among {sorted(files)}")
        backend = _backend(files["tokenizer.json"], "tokenizer.json")
        config = _parse_json(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")
        return cls(backend, config)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `files()` into `folder`, each whole or not at all."""
        for name, content in self.files().items():
            write_bytes(Path(folder) / name, content)

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides ids, special tokens and the chat template."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files().items()):
            digest.update(name.encode() + b"\0" + content + b"\0")
        return digest.hexdigest()


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      path: a folder with `tokenizer.json`, else `tokenizer.model`, else GPT-2's `vocab.json` + `merges.txt` (or
        `encoder.json` + `vocab.bpe`), each with the settings files that lie beside it; or a `.json`, sentencepiece
        `.model` or `.gguf` file.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: it is there and cannot be read; the message names file and value.
    """
    # Readers import the class above, so they are imported where they are needed.
    from imitation_jax.tokenizers.gguf import load_gguf
    from imitation_jax.tokenizers.sentencepiece import load_sentencepiece

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such tokenizer file or folder")
    if path.is_dir():
        if (path / "tokenizer.json").exists():
            return _load_tokenizer_json(path / "tokenizer.json")
        if (path / "tokenizer.model").exists():
            return load_sentencepiece(path / "tokenizer.model", read_config(path))
        for vocab, merges in GPT2_FILES:
            if (path / vocab).exists() and (path / merges).exists():
                return _load_gpt2(path / vocab, path / merges)
        raise FileNotFoundError(f"{path}: holds no tokenizer.json, tokenizer.model or vocab.json + merges.txt")
    if path.suffix == ".gguf":
        return load_gguf(path)
    if path.suffix == ".model":
        return load_sentencepiece(path, read_config(path.parent))
    if path.suffix == ".json":
        return _load_tokenizer_json(path)
    raise ValueError(f"{path}: not a tokenizer: give a folder, or a .json, .model or .gguf file")


def read_config(folder: Path) -> dict[str, Any]:
    """What the settings files in a model folder say, as one `tokenizer_config.json`."""

    def read(name: str) -> dict[str, Any]:
        return _parse_json((folder / name).read_bytes(), str(folder / name)) if (folder / name).exists() else {}

    config = read("special_tokens_map.json") | read("tokenizer_config.json")
    if (folder / "chat_template.jinja").exists():
        config["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return config


def set_metaspace(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Spaces as U+2581 and the space before a text, as transformers 5 does it for LLaMA's tokenizers.

    It differs from sentencepiece, and from transformers 4 reading `tokenizer.json`, in two ways: a text that begins
    with a space gets no second one, and text after a special token gets none, unless the config says `legacy`.
    """
    scheme = "never" if config.get("add_prefix_space") is False else "always" if config.get("legacy") else "first"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme != "never":
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)


def set_post_processor(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """What `add_special_tokens=True` adds, by the config's `add_bos_token` and `add_eos_token`.

    For vocabularies that come without a tokenizer.json: where there is one it decides, and transformers 5 does not
    look at the flags.
    """
    before = _content(config["bos_token"]) if config.get("add_bos_token") and config.get("bos_token") else None
    after = _content(config["eos_token"]) if config.get("add_eos_token") and config.get("eos_token") else None
    single = " ".join(([f"{before}:0"] if before else []) + ["$A:0"] + ([f"{after}:0"] if after else []))
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys((before, after)) if token]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)


def _load_tokenizer_json(path: Path) -> Tokenizer:
    config = read_config(path.parent)
    backend = _backend(path.read_bytes(), str(path))
    # transformers 5 takes vocabulary and merges alone out of tokenizer.json when the config names LLaMA's class.
    is_llama = str(config.get("tokenizer_class", "")).startswith("LlamaTokenizer")
    if is_llama and isinstance(backend.model, models.BPE) and backend.model.byte_fallback:
        backend.normalizer = None
        set_metaspace(backend, config)
    config = _with_generation_config(config, path.parent, backend)
    return Tokenizer(backend, config)


def _load_gpt2(vocab: Path, merges: Path) -> Tokenizer:
    try:
        model = models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{vocab}, {merges}: not a BPE vocabulary and its merges: {one_line(error)}") from error
    backend = tokenizers.Tokenizer(model)
    config = read_config(vocab.parent)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    defaults = {"bos_token": end, "eos_token": end, "unk_token": end} if backend.token_to_id(end) is not None else {}
    config = defaults | config
    set_post_processor(backend, config)
    return Tokenizer(backend, config)


def _with_generation_config(config: dict[str, Any], folder: Path, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """Fills BOS, EOS and padding from generation_config.json where the tokenizer's own files leave them out."""
    path = folder / "generation_config.json"
    if not path.exists():
        return config
    generation = _parse_json(path.read_bytes(), str(path))
    named = {}
    for key in ("bos_token", "eos_token", "pad_token"):
        ids = generation.get(f"{key}_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        if isinstance(first, int) and not config.get(key) and backend.id_to_token(first) is not None:
            named[key] = backend.id_to_token(first)
    return config | named


def _backend(content: bytes, where: str) -> tokenizers.Tokenizer:
    value = _parse_json(content, where)
    # With trimmed offsets a token that covers the space before a word would not show that it does.
    post_processor = value.get("post_processor") or {}
    for step in [post_processor, *post_processor.get("processors", [])]:
        if step.get("trim_offsets"):
            step["trim_offsets"] = False
            content = json.dumps(value, ensure_ascii=False).encode()
    try:
        backend = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{where}: not a tokenizer.json: {one_line(error)}") from error
    return backend


def _parse_json(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found a {type(value).__name__}")
    return value


def one_line(error: Exception) -> str:
    """The message of another library's error, for use inside a one-line message of ours."""
    return " ".join(str(error).split())


def _content(token: str | dict[str, Any]) -> str:
    return token["content"] if isinstance(token, dict) else token


def _default_template(template: str | list[dict[str, str]] | None) -> str | None:
    if isinstance(template, list):  # several named templates
        return {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _added(token: str | dict[str, Any], special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=special, normalized=False)
    flags = {key: bool(token[key]) for key in ("single_word", "lstrip", "rstrip", "normalized") if key in token}
    return AddedToken(token["content"], special=special or bool(token.get("special")), **flags)


def _add_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    by_id = sorted((int(i), token) for i, token in (config.get("added_tokens_decoder") or {}).items())
    backend.add_tokens([_added(token, False) for _, token in by_id if _content(token) not in known])
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else list(extra)
    named = [config[key] for key in NAMED_TOKENS if config.get(key)]
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens([_added(token, True) for token in named + extra if _content(token) not in known])
