"""One of several hosts that score and generate together: python one_host.py PORT HOSTS HOST MESH; host 0 prints."""

import dataclasses
import json
import sys

import jax
import numpy as np
import tokenizers
from tokenizers import models

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.tokenizer import Tokenizer

port, hosts, host, spec = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", int(hosts), int(host))
config = dataclasses.replace(llama.PRESETS["tiny"], num_hidden_layers=2)
random = np.random.default_rng(0)
shapes = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
params = jax.tree.map(lambda leaf: random.normal(0.0, 0.2, leaf.shape).astype(np.float32), shapes)
words = {f"w{i}": i for i in range(config.vocab_size)}
tokenizer = Tokenizer(tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0")), {"bos_token": "w1"})
common = random.integers(0, 512, 100).tolist()
engine = Engine(LoadedModel(llama, config, params, tokenizer, None), make_mesh(spec), batch_size=1)
scores = engine.score([ScoreRequest([*common, i, i + 1], [i + 2, i + 3]) for i in range(40)])
texts = engine.generate([GenerateRequest([i, *common[:70], i], 6, stop_ids=frozenset()) for i in range(7)])
if host == "0":
    print(json.dumps({"logprobs": [score.logprob for score in scores], "ids": [text.ids for text in texts]}))
