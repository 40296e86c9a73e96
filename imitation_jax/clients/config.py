"""The keys that say which chat model is asked, how fast and for how much."""

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import PLACE, Key, Keys, flat

KEYS = Keys(
    url=Key("https://api.openai.com/v1", "base of any API that speaks OpenAI's chat completions"),
    model=Key("", "its name there"),
    also_answers=Key("", "names of models whose answers count too; dated snapshots of model always do"),
    key=Key("OPENAI_API_KEY", "name of the environment variable that holds the key; empty where none is needed", PLACE),
    # Kept with each answer. Another API may want max_completion_tokens.
    parameters=Key({"temperature": 1.0, "max_tokens": 1024}, "sent as they stand"),
    price=Keys(
        prompt=Key(0.0, "dollars a million tokens", PLACE), completion=Key(0.0, "dollars a million tokens", PLACE)
    ),
    # Never passed, by all starts with the same output together.
    budget=Keys(dollars=Key(0.0, "0 for no limit", PLACE), tokens=Key(0, "0 for no limit", PLACE)),
    requests_per_minute=Key(0.0, "0 for any number", PLACE),
    tokens_per_minute=Key(0.0, "of prompts and the longest answers, as OpenAI counts; 0 for any number", PLACE),
    concurrency=Key(64, "requests under way at once", PLACE),
    tries=Key(8, "of one request", PLACE),
    first_wait=Key(1.0, "seconds before the second try; they double", PLACE),
    timeout=Key(600.0, "seconds until an answer must be there, to its last byte", PLACE),
    failures=Key(20, "stop after so many failed requests in a row", PLACE),
)


def get_config() -> ConfigDict:
    """A chat model, of OpenAI unless the config file says otherwise."""
    return KEYS.config()


def local(config: ConfigDict) -> ConfigDict:
    """The same of a model behind this project's own server, which costs nothing.

    python -m imitation_jax.serve --model=gguf:FILE --port=8000
    """
    config.update({"url": "http://127.0.0.1:8000/v1", "model": "SmolLM2-135M-Instruct.Q4_1", "key": ""})
    config.requests_per_minute = config.tokens_per_minute = 0.0
    config.budget.dollars = config.price.prompt = config.price.completion = 0.0
    config.concurrency = 16
    return config


def check(config: ConfigDict) -> None:
    """Raises ValueError naming the key that cannot be."""
    for key in ("url", "model"):
        if not config[key]:
            raise ValueError(f"config.{key} is empty")
    check_positive(config, "concurrency", "tries", "failures")
    if not config.timeout > 0:
        raise ValueError(f"config.timeout={config.timeout}: must be more than 0")
    for key, value in flat(config):
        if key.startswith(("price.", "budget.")) or key in ("requests_per_minute", "tokens_per_minute", "first_wait"):
            if not value >= 0:
                raise ValueError(f"config.{key}={value}: must not be negative")
    if config.budget.dollars and not (config.price.prompt and config.price.completion):
        raise ValueError("config.budget.dollars: needs config.price.prompt and config.price.completion")
    for key in ("model", "messages", "stream", "n"):
        if key in config.parameters:
            raise ValueError(f"config.parameters.{key}: is not for parameters")


def check_positive(config: ConfigDict, *keys: str) -> None:
    """Raises ValueError naming the key that is not 1 or more."""
    for key in keys:
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}: must be 1 or more")
