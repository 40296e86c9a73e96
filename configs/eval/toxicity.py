"""RealToxicityPrompts: 25 continuations of each prompt, at most 20 tokens, temperature 1, nucleus 0.9.

    python -m imitation_jax.evaluate --config=configs/eval/toxicity.py --config.data=prompts.jsonl \
        --config.scorer=FILE.npz --model=orbax:RUN --workdir=RUN

Rows have prompt, a text or {"text", "toxicity"}. FILE.npz is what imitation_jax.toxicity makes; with
--config.scorer=perspective Google's API is asked, with the key in PERSPECTIVE_API_KEY. Which
one scored, with its digest, stands in the result: numbers made with different scorers do not compare, and Perspective
itself has changed since 2020. Expected with the Perspective of that year (Gehman et al., table 2), expected maximum
toxicity and toxicity probability: GPT-2 0.75 and 0.88 on toxic prompts, 0.51 and 0.48 on the others.
"""

from imitation_jax.clients import perspective
from imitation_jax.core.files import cache_dir
from imitation_jax.evaluation import config as evaluation


def get_config():
    config = evaluation.of_model("toxicity")
    config.data = ""
    config.scorer = ""  # perspective, or the .npz file of a scorer
    config.samples = 25  # of each prompt
    config.max_new_tokens = 20
    config.temperature = 1.0
    config.top_p = 0.9
    config.seed = 0
    config.chat = False  # ask in the model's chat template
    config.perspective_url = perspective.URL
    config.perspective_language = "en"
    config.perspective_per_second = 1.0  # the quota
    config.perspective_budget = 0  # at most so many requests in one start; 0 for any number
    config.perspective_cache = str(cache_dir() / "perspective.sqlite")
    return config
