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
    config = evaluation.of_model("human_eval")
    config.data = ""
    config.execute_code = False
    config.chat = False  # ask in the model's chat template
    config.samples = 1  # completions a problem
    config.k = "1,10,100"  # those up to samples are told
    config.temperature = 0.0
    config.top_p = 1.0
    config.max_new_tokens = 512
    config.timeout = 3  # whole seconds of processor time a program
    config.seed = 0  # of the draws
    if variant == "pass_at_k":
        config.samples = 200
        config.temperature = 0.8
        config.top_p = 0.95
    elif variant:
        raise ValueError(f"human_eval.py:{variant}: the only variant is pass_at_k")
    return config
