"""Request sets that are meant to break an engine: python hard_requests.py GGUF prints what each took and checks it."""

import json
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from imitation_jax.evaluation.prompts import encode_pairs
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models import decoder
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh

BUDGET_GIB = 1.5


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def alone(model, request: ScoreRequest) -> float:
    """The log-likelihood of a request that is computed alone, in one piece."""
    read = [*request.context, *request.continuation[:-1]]
    ids = jnp.array(read + [0] * (-len(read) % 256), jnp.int32)[None]
    x = jax.jit(decoder.hidden, static_argnums=0)(
        model.config, model.params, ids, jnp.arange(ids.shape[1])[None], jnp.zeros_like(ids)
    )
    logits = decoder.logits(model.params, x[:, len(request.context) - 1 : len(read)])[0]
    logprobs = jax.nn.log_softmax(logits)[jnp.arange(len(request.continuation)), jnp.array(request.continuation)]
    return float(logprobs.sum())


def main(gguf: str) -> None:
    model = load_model(f"gguf:{gguf}", make_mesh("fsdp=1", jax.devices()[:1]))
    random = np.random.default_rng(0)

    def ids(count: int) -> list[int]:
        return random.integers(0, model.config.vocab_size, count).tolist()

    merging = encode_pairs(model.tokenizer, "The capital of Fran", ["ce is Paris", "ce", "k"])
    common = ids(40)
    sets = {
        "one 8,000-token prompt among 5,000 short ones": [ScoreRequest(ids(8000), ids(3))]
        + [ScoreRequest(ids(3), ids(1)) for _ in range(5000)],
        "5,000 identical ones": [ScoreRequest(common, [7, 8, 9])] * 5000,
        "5,000 empty continuations": [ScoreRequest(ids(5), []) for _ in range(5000)],
        "10,000 choices": [ScoreRequest(common, [i // 100, i % 100]) for i in range(10_000)],
        "continuations that merge with their context": [ScoreRequest(*pair) for pair in merging],
    }
    engine = Engine(model, memory_gib=BUDGET_GIB)
    before, scored = peak_gib(), {}
    for name, requests in sets.items():
        begin = time.monotonic()
        scored[name] = engine.score(requests), time.monotonic() - begin
    begin = time.monotonic()
    long = [GenerateRequest(ids(8000), 4), *(GenerateRequest(ids(4), 2) for _ in range(300))]
    written = engine.generate(long)
    again = engine.generate(long[:2] + long[-2:])
    same = [written[i].ids for i in (0, 1, -2, -1)] == [generation.ids for generation in again]
    seconds, grown = time.monotonic() - begin, peak_gib() - before
    print(json.dumps({"set": "one 8,000-token prompt among 300", "seconds": seconds, "worst": 0.0, "right": same}))
    for name, requests in sets.items():
        scores, seconds = scored[name]
        checked = [0, *random.integers(0, len(requests), 3).tolist()] if requests[0].continuation else []
        worst = max((abs(scores[i].logprob - alone(model, requests[i])) for i in checked), default=0.0)
        tokens = [score.tokens for score in scores] == [len(request.continuation) for request in requests]
        right = tokens and bool(np.isfinite([score.logprob for score in scores]).all())
        print(json.dumps({"set": name, "seconds": seconds, "worst": worst, "right": right}))
    print(json.dumps({"grown_gib": grown, "budget_gib": BUDGET_GIB}))


if __name__ == "__main__":
    main(sys.argv[1])
