"""Live comparison with transformers, which runs in the interpreter that IMITATION_ORACLE_PYTHON names."""

import functools
import gzip
import json
import subprocess

import numpy as np
import pytest
from float64_forward import FACTOR, errors, logits

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest
from imitation_jax.models.gguf import open_gguf
from imitation_jax.models.load import load_model, save_model

pytestmark = pytest.mark.slow
DIALOGUES, LENGTH = 20, 600
PROMPTS, NEW_TOKENS = 20, 48
TIE = 1e-4
RENDER = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps(tokenizer.apply_chat_template(json.loads(sys.argv[2]), tokenize=False)))
"""


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


@pytest.fixture(scope="module")
def theirs(transformers, smollm2_gguf, rows):
    return transformers(smollm2_gguf, rows)


def test_logits_of_what_is_exported_equal_those_of_the_gguf_file(smollm2, rows, theirs, transformers, tmp_path):
    """The export holds the very weights that transformers itself reads out of the GGUF file."""
    save_model(smollm2, f"hf:{tmp_path}/out")
    exported = transformers(tmp_path / "out", rows)
    for number in range(len(rows)):
        np.testing.assert_array_equal(*(np.load(folder / f"{number}.npy") for folder in (exported, theirs)))


def test_the_numerical_law(smollm2, smollm2_gguf, rows, theirs, logits_of):
    """Over all dialogues; takes minutes for the float64 forward passes."""
    hf, tensors = open_gguf(smollm2_gguf)
    tensors = {name: functools.cache(read) for name, read in tensors.items()}
    largest, squares = np.zeros(2), np.zeros(2)
    for number, row in enumerate(rows):
        exact = logits(hf, tensors, row)
        pair = [errors(of, exact) for of in (logits_of(smollm2, [row])[0], np.load(theirs / f"{number}.npy"))]
        largest = np.maximum(largest, [error[0] for error in pair])
        squares += np.square([error[1] for error in pair]) / len(rows)
    rms = np.sqrt(squares)
    print("to float64: largest {:.3g} (transformers {:.3g}), root mean square {:.3g} ({:.3g})".format(*largest, *rms))
    assert largest[0] <= FACTOR * largest[1] and rms[0] <= FACTOR * rms[1]


def test_greedy_continuations(smollm2, smollm2_gguf, lent, one_device, transformers, logits_of):
    """Token for token; where they part, the two best tokens lie within TIE of each other, here and there."""
    questions = [json.loads(line)["prompt"] for line in open(lent("koala_test_set/koala_test_set.jsonl"))]
    prompts = [smollm2.template.prompt_ids([{"role": "user", "content": text}]) for text in questions]
    prompts = [ids for ids in prompts if len(ids) < 400][:PROMPTS]
    ours = Engine(smollm2, one_device).generate([GenerateRequest(ids, NEW_TOKENS) for ids in prompts])
    folder = transformers(smollm2_gguf, prompts, NEW_TOKENS)
    same = 0
    for number, (prompt, mine) in enumerate(zip(prompts, ours, strict=True)):
        them = json.loads((folder / f"{number}.json").read_text())
        end = next((at for at, i in enumerate(them["ids"]) if i in smollm2.template.stop_ids), NEW_TOKENS)
        if mine.ids == them["ids"][:end]:
            same += 1
            continue
        pairs = enumerate(zip(mine.ids, them["ids"], strict=False))
        at = next((at for at, (a, b) in pairs if a != b), min(len(mine.ids), end))
        last, best = np.sort(logits_of(smollm2, [prompt + mine.ids[:at]])[0, -1])[-2:]
        assert best - last <= TIE and them["gaps"][at] <= TIE, f"prompt {number}, token {at}"
    print(f"{same} of {len(prompts)} continuations are the same")
    assert len(prompts) == PROMPTS and same >= PROMPTS - 2


def test_the_exported_template_is_the_one_that_was_trained_with(hf_folder, oracle_python, tmp_path):
    messages = [{"role": "user", "content": "w5 w6"}, {"role": "assistant", "content": "w7"}]
    model = load_model(f"hf:{hf_folder('multi_head')}", template="plain")
    save_model(model, f"hf:{tmp_path}/out")
    argv = [oracle_python, "-c", RENDER, tmp_path / "out", json.dumps(messages)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == model.template.render(messages)
