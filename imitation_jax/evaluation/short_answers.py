"""Short answers from memory: what Natural Questions and TriviaQA share.

An answer counts by exact match and by F1 of words (Rajpurkar et al. 2016, arXiv 1606.05250), each the best over the
gold answers, after the normalisation that `config.normalise` names. `stops="lm_eval"` are lm-eval's, which stand in the
LLaMA paper too (arXiv 2302.13971, appendix A): they cut answers such as "Washington, D.C." short (lm-eval's issue
1381), so the default is the end of the line alone.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import Key, Keys
from imitation_jax.evaluation import generations, statistics
from imitation_jax.evaluation.generations import Prompt
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs

STOPS = {"newline": ("\n",), "lm_eval": ("\n", ".", ",")}
# {bare}: the question without the question marks at its end
LLAMA = Prompt("Answer these questions:\n\n", "Q: {bare}?\nA:", " {answer}\n")
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
NEEDS, PAIRED = Needs.MODEL, ("correct", "f1")
KEYS = generations.KEYS | Keys(
    prompt=Key("llama", "llama; lm_eval: the question as it is"),
    stops=Key("newline", "what ends an answer; lm_eval: newline, full stop, comma"),
)

Normalise = Callable[[str], str]


def squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def lower_unpunctuated(text: str) -> str:
    """lm-eval's ignore_case and ignore_punctuation."""
    return text.lower().translate(PUNCTUATION)


def exact_match(prediction: str, golds: list[str], normalise: Normalise = squad) -> bool:
    """Whether the prediction is one of the golds after `normalise`."""
    return normalise(prediction) in {normalise(gold) for gold in golds}


def f1(prediction: str, golds: list[str], normalise: Normalise = squad) -> float:
    """Best harmonic mean of word precision and recall over the golds, after `normalise`."""
    return max(_f1(normalise(prediction).split(), normalise(gold).split()) for gold in golds)


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    common = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * common / (len(prediction) + len(gold))


def bare(question: str) -> str:
    """A question without white space around it and the question marks at its end."""
    return question.strip().rstrip("? ")


def read(
    config: ConfigDict,
    parse: Callable[[str, dict], dict],
    prompts: dict[str, Prompt],
    normalisations: dict[str, Normalise],
) -> list[dict]:
    """See `generations.read`.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    generations.one_of(config, "stops", STOPS)
    generations.one_of(config, "normalise", normalisations)
    return generations.read(config, parse, prompts[generations.one_of(config, "prompt", prompts)], spare=1)


def ask(
    engine: AnyEngine,
    items: list[dict],
    config: ConfigDict,
    on_sample: Callable[[Sample], None],
    normalisations: dict[str, Normalise],
) -> None:
    """Greedy answers, without the white space around them."""
    normalise = normalisations[config.normalise]

    def judge(item: dict, text: str) -> Sample:
        prediction, gold = text.strip(), item["gold"]
        return {
            "prediction": prediction,
            "correct": exact_match(prediction, gold, normalise),
            "f1": f1(prediction, gold, normalise),
        }

    generations.answer(engine, items, config, on_sample, stop=STOPS[config.stops], judge=judge)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Exact match, F1, and what was dropped on the way."""
    return {
        "metrics": {
            "exact_match": statistics.proportion([sample["correct"] for sample in samples]),
            "f1": statistics.mean([sample["f1"] for sample in samples]),
        },
        "counts": {
            **generations.counts(samples, items, config),
            "answers_empty": sum(not sample["prediction"] for sample in samples),
        },
    }
