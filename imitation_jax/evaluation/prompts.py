"""From text to the tokens that are asked: one rule for scored pairs, one for prompts, one for shots that do not fit."""

import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence

from imitation_jax.evaluation.task import AnyEngine
from imitation_jax.tokenizers.gguf import LLAMA3, QWEN2
from imitation_jax.tokenizers.tokenizer import Tokenizer

Pair = tuple[list[int], list[int]]

# Steps of pre-tokenizers that cut a text into words, as tokenizer.json writes them.
WORDS = [
    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    for pattern in (LLAMA3, QWEN2)
]


class LineEncoder:
    """Ids of texts most of whose lines came before, equal to those of `Tokenizer.encode` with special tokens.

    A text is cut before those line breaks over which its tokenizer never joins anything (`line_cuts`), and each piece
    is encoded once. Where that cannot be told of a tokenizer its texts are encoded whole.
    """

    MOST = 20_000  # pieces kept, about 10 MB

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._cuts, self._lead = line_cuts(tokenizer)
        self._skip = len(tokenizer.encode(self._lead))
        self._known: dict[tuple[bool, str], list[int]] = {}
        bare, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        self._before, self._after = whole[:at], whole[at + len(bare) :]

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        if self._cuts is None:
            return self._tokenizer.encode(text, add_special_tokens=True)
        return [*self._before, *self._ids(self._pieces(text), True), *self._after]

    def encode_continued(self, context: str, continuations: Sequence[str]) -> list[list[int]]:
        """The ids of the context alone, then of the context with each continuation."""
        if self._cuts is None:
            return self._tokenizer.encode_batch([context, *(context + text for text in continuations)], True)
        *pieces, last = self._pieces(context)
        shared = [*self._before, *self._ids(pieces, True)]
        ends = (self._ids(self._pieces(last + text), not pieces) for text in ("", *continuations))
        return [[*shared, *end, *self._after] for end in ends]

    def _pieces(self, text: str) -> list[str]:
        places = [0, *(match.start() for match in self._cuts.finditer(text)), len(text)]
        return [text[start:end] for start, end in itertools.pairwise(places)]

    def _ids(self, pieces: Sequence[str], begins: bool) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            own = self._known.get((begins, piece))
            if own is None:
                own = self._tokenizer.encode(piece if begins else self._lead + piece)
                own = own if begins else own[self._skip :]
                if len(self._known) >= self.MOST:
                    self._known.clear()
                self._known[begins, piece] = own
            ids += own
            begins = False
        return ids


# One of a tokenizer, so that all its texts share pieces.
line_encoder = functools.lru_cache(maxsize=2)(LineEncoder)


def line_cuts(tokenizer: Tokenizer) -> tuple[re.Pattern | None, str]:
    """Line breaks before which a text can be cut: the ids of its pieces, one after the other, are the ids of the whole.

    Read from what the tokenizer is made of. Byte-level tokenizers cut the text into words by a pattern first, and in
    those known here no word reaches from a visible character, or from a letter or digit, over a line break, and how
    the break begins the next word depends on nothing before it. LLaMA's sentencepiece has no pieces with line breaks.

    Returns:
      A pattern that matches those line breaks, None where nothing can be told; and what must come before a piece that
      is encoded alone, for sentencepiece a line break, lest it put a space there as at the start of a text.
    """
    parts = json.loads(tokenizer.backend.to_str())
    model, normalizer, splitter = parts["model"], parts["normalizer"], parts["pre_tokenizer"] or {}
    plain = not any(
        "\n" in token["content"] or token["lstrip"] or token["rstrip"] or token["single_word"]
        for token in parts["added_tokens"]
    )
    # NFC composes nothing with a line break.
    if not plain or model.get("dropout") or normalizer not in (None, {"type": "NFC"}):
        return None, ""
    *first, last = splitter.get("pretokenizers", [splitter])
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        splits = [step for step in first if step["type"] != "Digits"]
        if not splits and last["use_regex"]:
            return re.compile(r"\n(?<=[!-~]\n)"), ""
        if splits and all(step in WORDS for step in splits):
            return re.compile(r"\n(?<=[A-Za-z0-9]\n)"), ""
    if last.get("type") == "Metaspace" and not first and not last["split"] and last["prepend_scheme"] != "always":
        joined = any("\n" in part or part == "<0x0A>" for merge in model.get("merges", []) for part in merge)
        whole = model["type"] == "BPE" and not model["ignore_merges"] and model["byte_fallback"]
        if whole and not joined and "<0x0A>" in model["vocab"]:
            return re.compile(r"\n(?<=[\s\S]\n)"), "\n"
    return None, ""


def encode_pairs(tokenizer: Tokenizer, context: str, continuations: Sequence[str]) -> list[Pair]:
    """(context ids, continuation ids) of every continuation, as lm-eval splits them.

    Context and continuation are encoded together, with the special tokens that the tokenizer puts in front by itself,
    and cut at the length of the context alone; white space that ends the context belongs to the continuation. An empty
    context is the beginning-of-sequence token, or the end-of-sequence token where there is none. Where the continuation
    merges with the context's end so that no token is left after that cut, which lm-eval refuses, it is cut where the
    ids part from those of the context alone.

    Raises:
      ValueError: a continuation that adds nothing.
    """
    stripped = context.rstrip()
    texts = [context[len(stripped) :] + text for text in continuations]
    if stripped:
        context_ids, *wholes = line_encoder(tokenizer).encode_continued(stripped, texts)
    else:
        context_ids = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
        wholes = [context_ids + ids for ids in tokenizer.encode_batch(texts)]
    return _pairs(context_ids, wholes, continuations)


def _pairs(context: list[int], wholes: Sequence[list[int]], continuations: Sequence[str]) -> list[Pair]:
    pairs = []
    for text, whole in zip(continuations, wholes, strict=True):
        start = context
        if len(whole) <= len(context):
            same = next((i for i, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(whole))
            start = whole[:same]
        if len(whole) == len(start):
            raise ValueError(f"continuation {text!r} adds no token to its context: there is nothing to score")
        pairs.append((start, whole[len(start) :]))
    return pairs


def encode_choices(engine: AnyEngine, context: str, choices: Sequence[str], chat: bool) -> list[Pair]:
    """(context ids, choice ids) of every choice.

    Plain: the choice follows the context after one space. Chat: the context is what the user says, and the choice is
    how the assistant's turn starts, without the space.

    Raises:
      ValueError: see `encode_pairs`.
    """
    if not chat:
        return encode_pairs(engine.tokenizer, context, [" " + choice for choice in choices])
    context_ids = encode_prompt(engine, context, chat)
    return _pairs(context_ids, [context_ids + ids for ids in engine.tokenizer.encode_batch(choices)], choices)


def encode_prompt(engine: AnyEngine, text: str, chat: bool) -> list[int]:
    """Ids of a prompt to continue: the text as it is, or as a user's turn with the assistant's turn opened."""
    if chat:
        return engine.template.prompt_ids([{"role": "user", "content": text}])
    return line_encoder(engine.tokenizer).encode(text)


def with_shots_that_fit(
    shots: Sequence[str], encode: Callable[[Sequence[str]], list[Pair]], limit: int
) -> tuple[list[Pair], int]:
    """Drops shots from the end until the longest pair has at most `limit` tokens, as the original MMLU code does.

    Without any shot the context's first tokens are cut off, so that the question's end and the answer are kept.

    Args:
      shots: worked examples, best first.
      encode: from the shots that are left to the pairs.

    Returns:
      The pairs and how many shots they hold; -1 where the question itself had to be cut.
    """
    for count in range(len(shots), -1, -1):
        pairs = encode(shots[:count])
        if max(len(context) + len(rest) for context, rest in pairs) <= limit:
            return pairs, count
    return cut_to_fit(pairs, limit)[0], -1


def cut_to_fit(pairs: list[Pair], limit: int) -> tuple[list[Pair], bool]:
    """Cuts as many first tokens off all contexts as the longest pair has over `limit`.

    Returns:
      The pairs, and whether anything was cut.
    """
    too_many = max(len(context) + len(rest) for context, rest in pairs) - limit
    return ([(context[too_many:], rest) for context, rest in pairs], True) if too_many > 0 else (pairs, False)
