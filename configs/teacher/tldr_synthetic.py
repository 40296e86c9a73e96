"""TLDR-synthetic, the ICLR version's second local task: a summary of each of 200,000 passages.

    python -m imitation_jax.collect --config=configs/teacher/tldr_synthetic.py --config.passages=FILE \
        --config.avoid=EVALUATION_FILE --output=tldr_synthetic.jsonl

Passages stand under passage, document, article, content or prompt. Nothing is asked for a passage that repeats or that
shares 13 words in a row with config.avoid; summaries that were cut off or are not shorter than their passage are left
out. Both with the reason in tldr_synthetic.rejected.jsonl. 200,000 passages of 300 tokens cost about $60 with GPT-3.5
Turbo's prices; --dry_run reckons it for yours. `tldr_synthetic.py:local` asks SmolLM2 behind `serve`, see local.py.
"""

from imitation_jax.teacher import config as teacher


def get_config(variant: str = ""):
    return teacher.grown(
        "tldr",
        variant,
        source="tldr_synthetic",
        budget={"dollars": 100.0},
        parameters={"max_tokens": 256},
        passages="",
        target=0,  # summaries; 0 for one of each passage
        prompt="Write a TL;DR, a summary of one or two sentences, of this text:\n\n{passage}",
        window=256,
        patience=100,
    )
