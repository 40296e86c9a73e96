"""What so many requests to a chat model cost, and how long they take at least."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from imitation_jax.clients.budget import Tokens, open_budget
from imitation_jax.clients.chat_client import BYTES_A_TOKEN, estimate, longest_answer


def forecast(config: ConfigDict, ledger: Path, asked: list[list[dict]], lengths: Sequence[int] = ()) -> list[str]:
    """Lines for people; writes nothing.

    Args:
      ledger: where what was spent stands, if anything was.
      asked: the messages of each request.
      lengths: tokens of the answers so far.
    """
    prompt, longest = sum(map(estimate, asked)), longest_answer(config.parameters)
    left = Tokens(prompt, longest * len(asked))
    with contextlib.closing(open_budget(config, ledger if ledger.exists() else ":memory:")) as budget:
        spent, cost = budget.known + budget.uncertain, budget.cost

    def priced(tokens: Tokens) -> str:
        return f"{tokens.total:,} tokens" + (f", ${cost(tokens):,.2f}" if any(budget.prices) else "")

    most = f"at most {left.completion:,} of answers ({longest:,} each)" if longest else "no bound on answers"
    text = [
        f"about {prompt:,} tokens of prompts (at {BYTES_A_TOKEN} bytes a token), {most}",
        f"cost: from {priced(Tokens(prompt))} to {priced(left)}; spent so far: {priced(spent)}",
    ]
    if lengths:
        like = Tokens(prompt, round(sum(lengths) / len(lengths) * len(asked)))
        text.append(f"with answers as long as the {len(lengths):,} so far: about {priced(like)}")
    for limit, name, least, worst in (
        (config.budget.dollars, "dollars", cost(spent + Tokens(prompt)), cost(spent + left)),
        (config.budget.tokens, "tokens", (spent + Tokens(prompt)).total, (spent + left).total),
    ):
        if limit:
            enough = "is enough" if worst <= limit else "may not be enough" if least <= limit else "is not enough"
            text.append(f"the budget of {limit:,} {name} {enough}")
    rates = ((len(asked), config.requests_per_minute), (left.total, config.tokens_per_minute))
    if minutes := [count / rate for count, rate in rates if rate]:
        text.append(f"the rate limits let that through in {math.ceil(max(minutes)):,} minutes")
    return text
