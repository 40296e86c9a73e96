"""How long a run is: as its data says where that can be read here, else as the config or the paper does."""

from typing import NamedTuple

from ml_collections import ConfigDict

PAPER_TOKENS = 150e6  # of all dialogues of the paper's largest mixture (arXiv 2305.15717, section 3)


class Length(NamedTuple):
    """Optimiser steps, and where the number is from."""

    steps: int
    source: str


def run_length(config: ConfigDict) -> Length:
    """The steps of a run."""
    if config.steps:
        return Length(config.steps, "config.steps")
    tokens = config.batch_size * config.data.seq_len
    steps = max(1, round(config.epochs * PAPER_TOKENS / tokens))
    return Length(steps, f"the paper's {PAPER_TOKENS / 1e6:.0f}M tokens, {config.epochs} times")
