import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training.validation import make_validation


def test_the_mean_over_every_loss_bearing_token(params, student, dialogues, open_stream, tiny_tokenizer):
    """Dialogue by dialogue, unpacked, in float64."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    template = load_template("model", tokenizer)
    loss = correct = count = 0

    @jax.jit
    def logits_of(params, tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        x = decoder.hidden(student, params, tokens, positions, jnp.ones_like(tokens))
        return decoder.logits(params, x)

    for line in dialogues.read_text().splitlines():
        ids, mask = template.tokenize(json.loads(line)["messages"])
        # The stream cuts dialogues into blocks of 96 pairs.
        for start in range(0, len(ids) - 1, 96):
            size = min(96, len(ids) - 1 - start)
            tokens, targets = np.zeros((1, 96), np.int32), np.array(ids[start + 1 : start + 1 + size])
            tokens[0, :size] = ids[start : start + size]
            bearing = np.array(mask[start + 1 : start + 1 + size], bool)
            logits = np.asarray(logits_of(params, tokens), np.float64)[0, :size]
            log_z = np.log(np.exp(logits).sum(-1))
            loss += (log_z - logits[np.arange(size), targets])[bearing].sum()
            correct += (logits.argmax(-1) == targets)[bearing].sum()
            count += bearing.sum()

    mesh = make_mesh("fsdp=4,tensor=2")
    jax.set_mesh(mesh)
    model = LoadedModel(llama, student, params, tokenizer, template)
    evaluate = make_validation(model, open_stream(8), dtype="float32", chunk=40, mesh=mesh)
    for _ in range(2):  # each call reads from the start
        numbers, texts = evaluate(model, 3)
        assert numbers["validation_loss"] == pytest.approx(loss / count, rel=1e-6)
        assert numbers["validation_accuracy"] == pytest.approx(correct / count) and texts == {}
