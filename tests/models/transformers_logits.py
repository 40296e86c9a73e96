"""What transformers answers: python transformers_logits.py MODEL_FOLDER|FILE.gguf IDS.json OUT_FOLDER [NEW_TOKENS]

IDS.json holds a list of lists of token ids. Row n's float32 logits (S, V) go to OUT_FOLDER/n.npy. With NEW_TOKENS its
greedy continuation is written instead: {"ids": [...], "gaps": [...]}, the gap between the two largest logits at each
step, to OUT_FOLDER/n.json.
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


def greedy(model, ids: list[int], new_tokens: int) -> dict:
    import torch

    row = torch.tensor([ids])
    found = model.generate(
        row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=new_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    gaps = [float(-step[0].topk(2).values.diff()) for step in found.logits]
    return {"ids": found.sequences[0, len(ids) :].tolist(), "gaps": gaps}


if __name__ == "__main__":
    model_path, ids_path, out = map(Path, sys.argv[1:4])
    student = load(model_path)
    for number, row_ids in enumerate(json.loads(ids_path.read_text())):
        if sys.argv[4:]:
            (out / f"{number}.json").write_text(json.dumps(greedy(student, row_ids, int(sys.argv[4]))))
        else:
            np.save(out / f"{number}.npy", logits(student, row_ids))
