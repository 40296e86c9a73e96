"""The keys that say whom `collect` asks, how fast and for how much; the files in configs/teacher/ add their own."""

from typing import Any

from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.core.fingerprint import LABEL, PLACE, Key, Keys

KEYS = clients.KEYS | Keys(
    task=Key("answers", "answers, nq, tldr or self_instruct"),
    source=Key("", "of the dialogues; where empty the model's name", LABEL),
    send_seed=Key(False, "with each request a seed of its own, drawn from seed"),
    seed=Key(0, "of what is drawn"),
)
# Of data that grow, see synthesis.py.
GROWN = KEYS | Keys(
    avoid=Key("", "evaluation files, with commas; or none"),
    target=Key(0, "rows; 0 for one of each request that there is", PLACE),
    prompt=Key("", "of each request, with names in braces for what it shows"),
    window=Key(64, "so many requests may be ahead of the last one whose answer has been read"),
    patience=Key(50, "when so many answers in a row gave too little ...", PLACE),
    least_yield=Key(0.1, "... fewer rows an answer than this, asking ends", PLACE),
)


def get_config() -> ConfigDict:
    """Answers of a chat model, of OpenAI unless the config file says otherwise."""
    return KEYS.config()


def grown(task: str, variant: str = "", local_target: int | None = None, **values: Any) -> ConfigDict:
    """Data that a task grows with GPT-3.5 Turbo, or in the variant "local" with a model behind our own `serve`.

    Args:
      local_target: rows of that variant, None for as many as else.
      values: of the task's own keys, and of others that differ from the defaults.
    """
    config = gpt_3_5_turbo(GROWN.config(task=task))
    config.update(values)
    if variant == "local":
        config = local(config)
        config.target = config.target if local_target is None else local_target
    elif variant:
        raise ValueError(f"{variant!r}: the variant is local")
    return config


def gpt_3_5_turbo(config: ConfigDict) -> ConfigDict:
    """The same of the cheapest ChatGPT that OpenAI still serves; look up prices and your account's limits."""
    config.model = "gpt-3.5-turbo"
    config.price.prompt, config.price.completion = 0.5, 1.5
    config.requests_per_minute, config.tokens_per_minute = 3500.0, 200_000.0
    return config


def local(config: ConfigDict) -> ConfigDict:
    """The same of a model behind this project's own `serve`, which costs nothing and answers the same every time."""
    clients.local(config)
    config.send_seed = True
    config.parameters.max_tokens = 256
    return config
