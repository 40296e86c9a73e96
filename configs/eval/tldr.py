"""TL;DR summaries, greedy, by ROUGE.

    python -m imitation_jax.evaluate --config=configs/eval/tldr.py --config.data=FILE.jsonl \
        --model=orbax:RUN --workdir=RUN

`tldr.py:chat` gives the model's chat template an instruction. Rows have a passage (passage, document, article, content
or prompt) and a summary (summary, highlights, label or completion). Passages that do not fit are cut at their end.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    prompt = "Write a TL;DR, a summary of one or two sentences, of this text:\n\n{passage}"
    return evaluation.of_task("tldr", variant, chat={"prompt": prompt, "stop": "", "chat": True})
