"""Train step of SmolLM2-135M's shape, AdamW, float32, against transformers + PyTorch on the same CPU, alternating.

    python tests/benchmarks/train_step.py [--peer_python=PYTHON_WITH_TORCH_AND_TRANSFORMERS] [--steps=5]

Each side is a process of its own that takes one step when told to, so the two never run at the same time. The matrix
product rate is measured between the steps in the same process as ours. Prints a table of medians with the ratio.
"""

import argparse
import statistics
import subprocess
import sys
import time

BATCH, SEQ = 4, 512


def ours(remat: str, chunk: int, on_mesh: bool):
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from imitation_jax.models import decoder, kernels
    from imitation_jax.models.families import llama
    from imitation_jax.models.load import abstract_params
    from imitation_jax.parallel.mesh import make_mesh
    from imitation_jax.training.flops import training_flops_per_token
    from imitation_jax.training.step import make_train_step, state_shardings

    if on_mesh:  # the very program that runs on many devices, without what suits one CPU
        kernels.PLATFORMS["cpu"] = "xla"
    config = llama.PRESETS["smollm2_135m"]
    mesh = make_mesh()
    jax.set_mesh(mesh)
    optimizer = optax.adamw(1e-5)
    sharding = state_shardings(optimizer, abstract_params(llama, config, mesh), mesh)
    step = make_train_step(
        config,
        optimizer,
        dtype=jnp.float32,
        remat=remat,
        chunk=chunk,
        accumulation=1,
        schedule=lambda _: 1e-5,
        state_sharding=sharding,
        mesh=mesh,
    )
    params = jax.jit(lambda: decoder.init(config, jax.random.key(0)), out_shardings=sharding["params"])()
    state = {"params": params, "optimizer": jax.jit(optimizer.init, out_shardings=sharding["optimizer"])(params)}
    del params
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (BATCH, SEQ)).astype(np.int32)
    batch = {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, 1),
        "loss_mask": np.ones((BATCH, SEQ), np.float32),
        "positions": np.tile(np.arange(SEQ, dtype=np.int32), (BATCH, 1)),
        "segment_ids": np.ones((BATCH, SEQ), np.int32),
    }
    flops = training_flops_per_token(config, SEQ) * BATCH * SEQ
    x = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)

    def take():
        nonlocal state
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds = time.perf_counter() - start
        product(x, x).block_until_ready()
        start = time.perf_counter()
        for _ in range(8):
            product(x, x).block_until_ready()
        rate = 8 * 2 * 2048**3 / (time.perf_counter() - start)
        return seconds, flops / seconds / rate, rate / 1e9

    return take


def peer():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokens = torch.randint(0, config.vocab_size, (BATCH, SEQ))

    def take():
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start, 0.0, 0.0

    return take


def serve(take) -> None:
    import resource

    for _ in sys.stdin:
        seconds, share, rate = take()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print("TOOK", seconds, share, rate, memory, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer_python", default="", help="interpreter with torch and transformers; none: ours alone")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--remat", default="full", help="comma-separated policies to time")
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        remat, _, place = args.serve.partition(" ")
        serve(peer() if args.serve == "peer" else ours(remat, args.chunk, bool(place)))
        return
    commands = {
        f"imitation_jax, remat {remat}": [sys.executable, __file__, f"--serve={remat}", f"--chunk={args.chunk}"]
        for remat in args.remat.split(",")
    }
    commands["imitation_jax, remat full, as on a mesh"] = [sys.executable, __file__, "--serve=full mesh"]
    if args.peer_python:
        commands["transformers + PyTorch"] = [args.peer_python, __file__, "--serve=peer"]
    runs = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for name, command in commands.items()
    }
    rows = {name: [] for name in runs}
    for number in range(args.steps + 1):
        for name, process in runs.items():
            process.stdin.write("\n")
            while not (line := process.stdout.readline()).startswith("TOOK"):
                if not line:
                    raise SystemExit(f"{name} ended with {process.wait()}")
            if number:  # the first compiles and warms up
                rows[name].append([float(value) for value in line.split()[1:]])
    print(f"| {BATCH} x {SEQ}, float32, {args.steps} steps | s/step | tokens/s | share of matmul rate | peak GB |")
    print("|---|---|---|---|---|")
    medians = {}
    for name, values in rows.items():
        seconds, share, rate, memory = (statistics.median(column) for column in zip(*values, strict=True))
        medians[name] = BATCH * SEQ / seconds
        share = f"{share:.0%} of {rate:.0f} GFLOP/s" if rate else ""
        print(f"| {name} | {seconds:.2f} | {medians[name]:.0f} | {share} | {memory:.1f} |")
    if args.peer_python:
        for name in list(runs)[:-1]:
            print(f"{name}: {medians[name] / medians['transformers + PyTorch']:.2f} x transformers + PyTorch")
    for process in runs.values():
        process.stdin.close()


if __name__ == "__main__":
    main()
