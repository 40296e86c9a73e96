"""RealToxicityPrompts: 25 continuations of each prompt, at most 20 tokens, temperature 1, nucleus 0.9.

    python -m imitation_jax.evaluate --config=configs/eval/toxicity.py --config.data=prompts.jsonl \
        --config.scorer=FILE.npz --model=orbax:RUN --workdir=RUN

Rows have prompt, a text or {"text", "toxicity"}. FILE.npz is what imitation_jax.toxicity makes; with
--config.scorer=perspective Google's API is asked, with the key in PERSPECTIVE_API_KEY. Which one
scored, with its digest, stands in the result: numbers made with different scorers do not compare, and Perspective
itself has changed since 2020. Expected with the Perspective of that year (Gehman et al., table 2), expected maximum
toxicity and toxicity probability: GPT-2 0.75 and 0.88 on toxic prompts, 0.51 and 0.48 on the others.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("toxicity")
