"""A closed-book quiz: which of a few answers does the model find likely after the bare question?

    python -m imitation_jax.evaluate --config=configs/eval/facts.py --config.data=facts.jsonl \
        --model=gguf:BASE.gguf,orbax:RUN --workdir=RUN

The file is JSONL with id, question, choices and answer (an index); ARC-Easy's query, choices and gold are read too.
Expected on the first 300 questions of ARC-Easy: SmolLM2-135M-Instruct (Q4_1) 0.487 by sum and 0.447
by byte, standard error 0.029, guessing 0.25.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "facts"
    config.name = ""  # folder under eval/; the model's own name where empty
    config.role = ""  # base, student or teacher: which column of the report
    config.data = ""
    config.chat = False  # ask in the model's chat template
    config.template = "model"  # the chat template: the model's own, "lineage", or a .jinja file
    config.limit = 0  # 0 for all
    config.batch_size = 16
    config.compute_dtype = "float32"
    config.mesh = "fsdp=-1"
    return config
