"""The keys of `judge`: whom it asks (see clients/config.py), and what."""

from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.core.files import cache_dir


def get_config() -> ConfigDict:
    """A judge that ranks two answers to requests of all kinds, both ways round."""
    config = clients.get_config()
    config.task = "judge"  # judge, or tone: whether one answer sounds authoritative
    config.prompt = "general"  # general, coding, math, or a text file with {instruction}, {answer_1} and {answer_2}
    config.verdict = "ranking"  # ranking (1, 2 or tie) or scores (two numbers from 1 to 10)
    config.orders = "both"  # or one for each pair, drawn from config.seed: half the cost, and no flip rate
    config.seed = 0
    # Where the two orders name opposite winners: none counts no vote, tie half of one for each as MT-Bench does.
    config.contradiction = "none"
    config.cache = str(cache_dir() / "judge.sqlite")  # every reply; a second start asks nothing twice
    config.retry_refused = False  # but what the judge refused
    # config.budget bounds what all comparisons by one model with one cache cost together; the bill lies beside it.
    config.name = ""  # folder under eval/; where empty the answers' generator
    config.role = ""  # base, student or teacher: which column of the report
    config.limit = 0  # only so many pairs; 0 for all
    config.parameters.temperature = 0.0
    config.concurrency = 16
    return config


def tone() -> ConfigDict:
    """The same for the question about tone."""
    config = get_config()
    config.task = "tone"
    for key in ("prompt", "verdict", "orders", "seed", "contradiction"):
        del config[key]
    return config
