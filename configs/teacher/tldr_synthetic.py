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
    config = teacher.gpt_3_5_turbo(teacher.get_config("tldr"))
    config.source = "tldr_synthetic"
    config.budget.dollars = 100.0
    config.parameters.max_tokens = 256
    config.passages = ""
    config.avoid = ""  # evaluation files, with commas; or none
    config.target = 0  # summaries; 0 for one of each passage
    config.prompt = "Write a TL;DR, a summary of one or two sentences, of this text:\n\n{passage}"
    config.window = 256  # so many requests may be ahead of the last one whose answer has been read
    config.patience = 100  # when so many answers in a row gave too little ...
    config.least_yield = 0.1  # ... fewer rows an answer than this, asking ends
    if variant == "local":
        config = teacher.local(config)
    elif variant:
        raise ValueError(f"tldr_synthetic.py:{variant}: the variant is local")
    return config
