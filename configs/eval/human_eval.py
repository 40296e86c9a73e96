"""HumanEval: greedy pass@1. Runs the code that the model writes, in a sandbox, and only if told so:

    python -m imitation_jax.evaluate --config=configs/eval/human_eval.py --config.data=HumanEval.jsonl.gz \
        --config.execute_code=True --model=orbax:RUN --workdir=RUN

`human_eval.py:pass_at_k` draws 200 completions a problem at temperature 0.8 for pass@1, pass@10 and pass@100. The
sandbox is bubblewrap (apt-get install bubblewrap), else util-linux's unshare; both need Linux and user namespaces.
Expected on the 164 problems (LLaMA paper): pass@1 LLaMA-7B 0.105, LLaMA-13B 0.158, standard error 0.03; pass@100
0.365 and 0.525. 164 programs take a few seconds of two processors.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    paper = {"samples": 200, "temperature": 0.8, "top_p": 0.95}
    return evaluation.of_task("human_eval", variant, pass_at_k=paper)
