"""What transformers answers: python transformers_logits.py MODEL_FOLDER|FILE.gguf IDS.json OUT.npz

IDS.json holds a list of lists of token ids; OUT.npz gets their float32 logits as arr_0, arr_1, ...
"""

import json
import sys
from pathlib import Path

import numpy as np


def load(path: Path):
    import torch
    from transformers import AutoModelForCausalLM

    where, file = (path.parent, path.name) if path.suffix == ".gguf" else (path, None)
    return AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32).eval()


def logits(model, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


if __name__ == "__main__":
    model_path, ids_path, out_path = map(Path, sys.argv[1:])
    student = load(model_path)
    np.savez(out_path, *(logits(student, ids) for ids in json.loads(ids_path.read_text())))
