"""Padding, and loss-bearing tokens/s of packed against unpacked rows, on real dialogues.

    python tests/benchmarks/packing.py --dialogues=prepared/dialogues.jsonl --model=SmolLM2.gguf [--steps=3]

Both sides train the 135M model on rows of 2,048 positions with one compiled step; packed and unpacked steps alternate.
"""

import argparse
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import optax

from imitation_jax.data.input.stream import Stream
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import abstract_params
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training.step import make_train_step, state_shardings

SEQ = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", required=True)
    parser.add_argument("--model", required=True, help="GGUF file of SmolLM2, for its tokenizer and chat template")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()

    tokenizer = load_tokenizer(args.model)
    template = load_template("model", tokenizer)
    streams = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, packing in (("packed", True), ("one block a row", False)):
            streams[name] = Stream(
                args.dialogues,
                tokenizer,
                template,
                seq_len=SEQ,
                batch_size=1,
                seed=0,
                epochs=1,
                packing=packing,
                cache_dir=cache,
            )
    config = llama.PRESETS["smollm2_135m"]
    mesh = make_mesh()
    jax.set_mesh(mesh)
    optimizer = optax.adamw(1e-5)
    sharding = state_shardings(optimizer, abstract_params(llama, config, mesh), mesh)
    options = dict(dtype=jnp.float32, remat="full", chunk=256, accumulation=1, schedule=lambda _: 1e-5)
    options |= dict(state_sharding=sharding, mesh=mesh)
    step = make_train_step(config, optimizer, **options)
    params = jax.jit(lambda: decoder.init(config, jax.random.key(0)), out_shardings=sharding["params"])()
    state = {"params": params, "optimizer": jax.jit(optimizer.init)(params)}
    del params
    seconds = {name: [] for name in streams}
    for number in range(args.steps + 1):
        for name, stream in streams.items():
            batch = stream[number * 37 % stream.steps_per_epoch]
            start = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            if number:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    print(f"| {SEQ} positions a row | rows | padding | loss tokens a row | s/step | loss tokens/s |")
    print("|---|---|---|---|---|---|")
    rates = {}
    for name, stream in streams.items():
        # A step costs the same whatever lies in it, so the epoch's average row is the fair numerator.
        tokens = stream.stats["loss_tokens"] / stream.stats["rows"]
        took = statistics.median(seconds[name])
        rates[name] = tokens / took
        padding = stream.stats["padding_share"]
        print(f"| {name} | {stream.stats['rows']} | {padding:.2%} | {tokens:.0f} | {took:.2f} | {rates[name]:.0f} |")
    print(f"packed: {rates['packed'] / rates['one block a row']:.2f} x one block a row")


if __name__ == "__main__":
    main()
