"""TL;DR summaries, greedy, by ROUGE.

    python -m imitation_jax.evaluate --config=configs/eval/tldr.py --config.data=FILE.jsonl \
        --model=orbax:RUN --workdir=RUN

`tldr.py:chat` gives the model's chat template an instruction. Rows have a passage (passage, document, article, content
or prompt) and a summary (summary, highlights, label or completion). Passages that do not fit are cut at their end.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    config = evaluation.of_model("tldr")
    config.data = ""
    config.prompt = "{passage}\n\nTL;DR:"
    config.stop = "\n\n"  # ends a summary beside the end of the model's turn; nothing for none
    config.max_new_tokens = 128
    config.chat = False  # ask in the model's chat template
    if variant == "chat":
        config.prompt = "Write a TL;DR, a summary of one or two sentences, of this text:\n\n{passage}"
        config.stop = ""
        config.chat = True
    elif variant:
        raise ValueError(f"tldr.py:{variant}: the variant is chat")
    return config
