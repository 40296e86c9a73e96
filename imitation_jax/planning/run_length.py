"""How long a run is: as its data say where they can be read here, else as the config or the paper does."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.data.input.stream import Stream
from imitation_jax.models import load
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training.config import sources

PAPER_TOKENS = 150e6  # of the paper's largest set of dialogues (arXiv 2305.15717, section 3)


class Length(NamedTuple):
    """Optimiser steps, and where the number is from."""

    steps: int
    source: str


def run_length(config: ConfigDict, cache_dir: Path) -> Length:
    """The steps of a run, exactly those of `train` where the config names data.

    Raises:
      ValueError, OSError: data or a tokenizer that cannot be read, in one line.
    """
    if config.data.path or config.data.mixture:
        total = _stream(config, cache_dir).total_steps
        return Length(min(config.steps or total, total), "the data")
    if config.steps:
        return Length(config.steps, "config.steps")
    steps = max(1, round(config.epochs * PAPER_TOKENS / (config.batch_size * config.data.seq_len)))
    times = f", {config.epochs} times" if config.epochs > 1 else ""
    return Length(steps, f"the paper's {PAPER_TOKENS / 1e6:.0f}M tokens{times}")


def _stream(config: ConfigDict, cache_dir: Path) -> Stream:
    where = config.model.tokenizer or load.split_source(config.model.init)[1]
    tokenizer = load_tokenizer(where)
    return Stream(
        sources(config),
        tokenizer,
        load_template(config.model.template, tokenizer),
        seq_len=config.data.seq_len,
        batch_size=config.batch_size,
        seed=config.seed,
        epochs=config.epochs,
        packing=config.data.packing,
        cache_dir=config.data.cache_dir or str(cache_dir / "tokens"),
    )
