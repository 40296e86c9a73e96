"""Live comparison with transformers, which runs in the interpreter that IMITATION_ORACLE_PYTHON names."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from imitation_jax.models.load import load_model, save_model

pytestmark = pytest.mark.slow
DIALOGUES, LENGTH = 4, 256


@pytest.fixture(scope="module")
def transformers_logits(tmp_path_factory):
    """`transformers_logits(path, rows)` is the float32 logits (S, V) of each row of ids."""
    python = os.environ.get("IMITATION_ORACLE_PYTHON")
    if not python:
        pytest.skip("IMITATION_ORACLE_PYTHON names no interpreter with torch, transformers and gguf")

    def run(path: Path, rows: list[list[int]]) -> list[np.ndarray]:
        folder = tmp_path_factory.mktemp("transformers")
        (folder / "ids.json").write_text(json.dumps(rows))
        script = Path(__file__).with_name("transformers_logits.py")
        subprocess.run([python, script, path, folder / "ids.json", folder / "logits.npz"], check=True)
        with np.load(folder / "logits.npz") as arrays:
            return [arrays[f"arr_{number}"] for number in range(len(rows))]

    return run


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf, one_device):
    return load_model(f"gguf:{smollm2_gguf}", one_device)


@pytest.fixture(scope="module")
def rows(lent, smollm2):
    """Real dialogues, by the model's own template, each cut to LENGTH ids."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    found = []
    with gzip.open(lent("sharegpt/sharegpt_sample.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            turns = json.loads(line)["conversations"]
            messages = [{"role": roles.get(turn["from"], "user"), "content": turn["value"]} for turn in turns]
            ids = smollm2.template.tokenize(messages)[0] if messages else []
            if len(ids) >= LENGTH:
                found.append(ids[:LENGTH])
            if len(found) == DIALOGUES:
                return found
    pytest.skip("the sample has too few long dialogues")


def largest_difference(ours, theirs):
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def test_logits_of_the_gguf_file_and_of_what_is_exported(
    smollm2, smollm2_gguf, rows, logits_of, transformers_logits, tmp_path
):
    ours = [logits_of(smollm2, [row])[0] for row in rows]
    theirs = transformers_logits(smollm2_gguf, rows)
    print("largest difference to transformers:", largest_difference(ours, theirs))
    save_model(smollm2, f"hf:{tmp_path}/out")
    exported = transformers_logits(tmp_path / "out", rows)
    # The export holds the very weights that transformers itself reads out of the GGUF file.
    assert largest_difference(theirs, exported) == 0
    assert largest_difference(ours, theirs) <= 1e-4
