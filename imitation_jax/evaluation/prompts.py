"""From text to the tokens that are asked: one rule for scored pairs, one for prompts, one for shots that do not fit."""

from collections.abc import Callable, Sequence

from imitation_jax.inference.engine import Engine
from imitation_jax.tokenizers.tokenizer import Tokenizer

Pair = tuple[list[int], list[int]]


def encode_pairs(tokenizer: Tokenizer, context: str, continuations: Sequence[str]) -> list[Pair]:
    """(context ids, continuation ids) of every continuation, as lm-eval splits them; all share one context list.

    Context and continuation are encoded together, with the special tokens that the tokenizer puts in front by itself,
    and cut at the length of the context alone; spaces that end the context belong to the continuation. An empty
    context is the beginning-of-sequence token, or the end-of-sequence token where there is none.

    Raises:
      ValueError: a continuation of which no token is left after the cut.
    """
    stripped = context.rstrip(" ")
    tail = context[len(stripped) :]
    if stripped:
        encoded = tokenizer.encode_batch(
            [stripped, *(stripped + tail + text for text in continuations)], add_special_tokens=True
        )
        context_ids, wholes = encoded[0], encoded[1:]
    else:
        context_ids = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
        wholes = [context_ids + ids for ids in tokenizer.encode_batch([tail + text for text in continuations])]
    pairs = [(context_ids, whole[len(context_ids) :]) for whole in wholes]
    for text, (_, ids) in zip(continuations, pairs, strict=True):
        if not ids:
            raise ValueError(f"continuation {text!r} adds no token to its context: there is nothing to score")
    return pairs


def encode_choices(engine: Engine, context: str, choices: Sequence[str], chat: bool) -> list[Pair]:
    """(context ids, choice ids) of every choice.

    Plain: the choice follows the context after one space. Chat: the context is what the user says, and the choice is
    how the assistant's turn starts, without the space.
    """
    if not chat:
        return encode_pairs(engine.tokenizer, context, [" " + choice for choice in choices])
    context_ids = engine.template.prompt_ids([{"role": "user", "content": context}])
    return [(context_ids, ids) for ids in engine.tokenizer.encode_batch(choices)]


def encode_prompt(engine: Engine, text: str, chat: bool) -> list[int]:
    """Ids of a prompt to continue: the text as it is, or as a user's turn with the assistant's turn opened."""
    if chat:
        return engine.template.prompt_ids([{"role": "user", "content": text}])
    return engine.tokenizer.encode(text, add_special_tokens=True)


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
    """Cuts off the first tokens of the pairs' common context until the longest pair has at most `limit` tokens.

    Returns:
      The pairs, and whether anything was cut.
    """
    context = pairs[0][0]
    too_many = len(context) + max(len(rest) for _, rest in pairs) - limit
    return ([(context[too_many:], rest) for _, rest in pairs], True) if too_many > 0 else (pairs, False)
