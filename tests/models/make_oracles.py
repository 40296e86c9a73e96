"""Writes oracles.json and oracles.npz beside this file: what transformers makes of the models in tiny_models.py.

Made with transformers 5.23, torch 2.13, gguf 0.19:
    python tests/models/make_oracles.py SMOLLM2_GGUF
"""

import json
import sys
from pathlib import Path

import numpy as np
from tiny_models import ARCHITECTURES, GPT2, LOGITS, ORACLES, tokens, weights
from transformers_logits import load, logits

PROMPT = "The capital of France is Paris, and the capital of Italy is"
EVERY = 512  # of the vocabulary's logits, this many apart are kept


def main(smollm2_gguf: str) -> None:
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    configs, arrays = {}, {}
    for name, fields in (ARCHITECTURES | {"gpt2": GPT2}).items():
        empty = GPT2LMHeadModel(GPT2Config(**fields)) if name == "gpt2" else LlamaForCausalLM(LlamaConfig(**fields))
        model = empty.eval()
        state = {key: torch.from_numpy(tensor) for key, tensor in weights(fields).items()}
        missing, unexpected = model.load_state_dict(state, strict=False)
        tied = ["lm_head.weight"] if fields["tie_word_embeddings"] else []
        assert missing == tied and not unexpected, (missing, unexpected)
        model.tie_weights()
        arrays[name] = logits(model, tokens(fields)[0].tolist())
        configs[name] = json.loads(model.config.to_json_string())
    student = load(Path(smollm2_gguf))
    path = Path(smollm2_gguf)
    ids = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).encode(PROMPT, add_special_tokens=False)
    last = logits(student, ids)[-1]
    smollm2 = {"text": PROMPT, "ids": ids, "every": EVERY, "logits": [float(f"{x:.9g}") for x in last[::EVERY]]}
    smollm2 |= {"argmax": int(last.argmax()), "max": float(f"{last.max():.9g}")}
    np.savez_compressed(LOGITS, **arrays)
    ORACLES.write_text(json.dumps({"configs": configs, "smollm2": smollm2}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
