"""The programs run where only jax, flax, optax and ml_collections are installed, as on a bare accelerator image."""

import json
import os
import subprocess
import sys
from pathlib import Path

from imitation_jax.training.config import get_config

# What these four need themselves.
INSTALLED = (
    "jax jaxlib flax optax ml_collections numpy ml_dtypes opt_einsum scipy absl yaml msgpack rich treescope "
    "typing_extensions"
).split()
PROGRAM = """
import json, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Bare:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        there = top in installed or top in sys.stdlib_module_names or top[0] == "_"
        return PathFinder.find_spec(name, path, target) if there else None

installed = {"imitation_jax", *sys.argv[1].split()}
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Bare]

import jax
import numpy as np
from ml_collections import ConfigDict
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models import decoder, families
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.training.program import make_program

class Words:
    bos_id, eos_id, special_ids, vocab_size = 1, 2, {1, 2}, 512
    def token_to_id(self, token):
        return None
    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))

config, mesh = ConfigDict(json.loads(sys.argv[2])), make_mesh()
family, tiny = families.preset("tiny")
jax.set_mesh(mesh)
program = make_program(config, family, tiny, mesh, total_steps=2)
params = decoder.init(tiny, jax.random.key(0))
state = jax.device_put({"params": params, "optimizer": program.optimizer.init(params)}, program.sharding)
rows = jax.random.randint(jax.random.key(1), program.batch["tokens"].shape, 0, tiny.vocab_size)
batch = {
    "tokens": rows,
    "targets": np.roll(rows, -1, 1),
    "positions": np.tile(np.arange(rows.shape[1]), (len(rows), 1)),
    "segment_ids": np.ones_like(rows),
    "loss_mask": np.ones(rows.shape, np.float32),
}
state, before = program.step(state, batch)
state, after = program.step(state, batch)
engine = Engine(LoadedModel(family, tiny, state["params"], Words(), None), batch_size=2)
[score] = engine.score([ScoreRequest([5, 6], [7, 8])])
[text] = engine.generate([GenerateRequest([5, 6], 4, stop_ids=frozenset())])
print(json.dumps([float(before["loss"]), float(after["loss"]), score.logprob, text.ids]))
"""


def test_a_tiny_model_is_trained_scored_and_decoded_with_jax_flax_optax_and_ml_collections_alone():
    config = get_config()
    config.batch_size, config.data.seq_len, config.optimizer.learning_rate = 2, 32, 1e-3
    config.optimizer.warmup_fraction = 0.0
    env = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", PROGRAM, " ".join(INSTALLED), json.dumps(config.to_dict())]
    done = subprocess.run(argv, cwd=Path(__file__).parent.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after, logprob, ids = json.loads(done.stdout.splitlines()[-1])
    assert after < before < 7 and -20 < logprob < -5 and len(ids) == 4
