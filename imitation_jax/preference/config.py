"""The keys of `judge`, and the settings of its results and of the raters': each with what another value changes."""

from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.core.files import cache_dir
from imitation_jax.core.fingerprint import DATA, LABEL, MODEL, PLACE, Key, Keys

TONE = clients.KEYS | Keys(
    task=Key("tone", "judge, or tone: whether one answer sounds authoritative"),
    # The ledger of what was spent lies beside it: `budget` bounds what all comparisons by one model cost together.
    cache=Key("", "every reply; a second start asks nothing twice", PLACE),
    retry_refused=Key(False, "but what the judge refused", PLACE),
    name=Key("", "folder under eval/; where empty the answers' generator", LABEL),
    role=Key("", "base, student or teacher: which column of the report", LABEL),
    limit=Key(0, "only so many pairs; 0 for all"),
    concurrency=Key(16, "requests under way at once", PLACE),
)
JUDGE = TONE | Keys(
    task=Key("judge", "judge, or tone: whether one answer sounds authoritative"),
    prompt=Key("general", "general, coding, math, or a text file with {instruction}, {answer_1} and {answer_2}"),
    verdict=Key("ranking", "ranking (1, 2 or tie) or scores (two numbers from 1 to 10)"),
    orders=Key("both", "or one for each pair, drawn from config.seed: half the cost, and no flip rate"),
    seed=Key(0, "draws the order of a pair"),
    contradiction=Key("none", "two orders that name opposite winners: none for no vote, tie as MT-Bench counts them"),
)
# What the settings of results hold beside the config.
RECORDED = Keys(
    model=Key("", "the judge's name, in results of before", MODEL),
    judge=Key("", "the judge's name"),
    opponent=Key(None, "whose answers the model's are compared with"),
    wording=Key("", "digest of what the judge is asked, without the answers"),
    data_digest=Key("", "of the answers", MODEL),
    verdicts=Key("", "file of verdicts that were there already", DATA),
)
# The settings of the raters' result, see rating/human_result.py.
HUMAN = Keys(
    generator_a=Key("", "whose answers are rated", MODEL),
    opponent=Key("", "whose answers they are compared with"),
    answers=Key("", "digest of all pairs and attention checks", MODEL),
    ratings=Key(3, "votes an item needs, each by another rater"),
    check_every=Key(10, "one in so many pairs is an attention check; 0 for none"),
    seed=Key(0, "draws the attention checks"),
    matched_by=Key("", "how the two files' answers were matched"),
    guidelines=Key("", "digest of what raters read; ours by default"),
    judge=Key("", "file of the judge's verdicts that the votes are put beside", DATA),
)
KEYS_OF_RESULTS = {"judge": JUDGE | RECORDED, "tone": TONE | RECORDED, "human": HUMAN}


def get_config() -> ConfigDict:
    """A judge that ranks two answers to requests of all kinds, both ways round."""
    return _judge(JUDGE)


def tone() -> ConfigDict:
    """The same for the question about tone."""
    return _judge(TONE)


def _judge(keys: Keys) -> ConfigDict:
    config = keys.config(cache=str(cache_dir() / "judge.sqlite"))
    config.parameters.temperature = 0.0
    return config
