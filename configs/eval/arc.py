"""ARC-Easy, no shots, lm-eval's prompt; `arc.py:challenge` is ARC-Challenge, `arc.py:challenge_25` that with 25 shots.

    python -m imitation_jax.evaluate --config=configs/eval/arc.py --config.data=tfds:ai2_arc/ARC-Easy:test \
        --model=orbax:RUN --workdir=RUN
    python -m imitation_jax.evaluate --config=configs/eval/arc.py:challenge_25 \
        --config.data=tfds:ai2_arc/ARC-Challenge:test --config.shots_data=tfds:ai2_arc/ARC-Challenge:train ...

Data are tfds' (array_record), or JSONL with Hugging Face's columns (question, choices, answerKey) or query, choices and
gold. lm-eval's acc is accuracy here, its acc_norm is accuracy_normalised, the one that is quoted for ARC-Challenge.
Expected on the first 300 lent questions of ARC-Easy: SmolLM2-135M-Instruct (Q4_1) 0.487 and 0.447, standard error
0.029, guessing 0.25.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    if variant not in ("", "challenge", "challenge_25"):
        raise ValueError(f"arc.py: no variant {variant!r}; there are challenge and challenge_25")
    config = evaluation.of_task("arc_challenge" if variant else "arc_easy")
    config.shots = 25 if variant == "challenge_25" else 0
    return config
