"""Train step on two CPU devices beside MaxText and Tunix, alternating: 4 layers, D 512, F 1,376, V 32,000, float32.

    python3.12 -m venv maxtext && maxtext/bin/pip install 'maxtext[tpu]==0.2.5'
    python3.12 -m venv tunix && tunix/bin/pip install google-tunix==0.1.7
    python tests/benchmarks/train_step_peers.py --maxtext=maxtext/bin/python --tunix=tunix/bin/python [--steps=6]

Batch 4 x 512, AdamW, full remat, state sharded over both devices. Ours is the program that `plan` compiles, a packed
batch included; the peers' are those of their own trainers' loops. Each side is a process of its own whose step waits
until it is told to, so no two run at the same time. Prints a table of medians and the ratios.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, SEQ, DEVICES = 4, 512, 2
LAYERS, D, F, HEADS, K, V = 4, 512, 1376, 8, 64, 32000


class Told:
    """A jitted step that runs when a line comes in, and answers with its seconds on the clock and of all processors."""

    def __init__(self, step):
        self.step = step

    def __call__(self, *args, **kwargs):
        import jax

        jax.block_until_ready((args, kwargs))
        if not sys.stdin.readline():
            os._exit(0)
        start, start_cpu = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(self.step(*args, **kwargs))
        print("TOOK", time.perf_counter() - start, time.process_time() - start_cpu, flush=True)
        return out

    def __getattr__(self, name):
        return getattr(self.step, name)


def ours(mesh: str) -> None:
    import jax
    import numpy as np

    from imitation_jax.models import decoder
    from imitation_jax.models.families import llama
    from imitation_jax.parallel.mesh import make_mesh
    from imitation_jax.training.config import get_config
    from imitation_jax.training.program import make_program

    config = get_config()
    config.mesh, config.batch_size, config.data.seq_len = mesh, BATCH, SEQ
    devices = make_mesh(config.mesh)
    program = make_program(config, llama, llama.LlamaConfig(V, D, F, LAYERS, HEADS, HEADS, K), devices, 1000)
    tokens = np.random.default_rng(0).integers(0, V, (BATCH, SEQ)).astype(np.int32)
    batch = {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, 1),
        "loss_mask": np.ones((BATCH, SEQ), np.float32),
        "positions": np.tile(np.arange(SEQ, dtype=np.int32), (BATCH, 1)),
        "segment_ids": np.ones((BATCH, SEQ), np.int32),
    }
    with jax.set_mesh(devices):
        sharding = program.sharding
        model = llama.LlamaConfig(V, D, F, LAYERS, HEADS, HEADS, K)
        params = jax.jit(lambda: decoder.init(model, jax.random.key(0)), out_shardings=sharding["params"])()
        state = {"optimizer": jax.jit(program.optimizer.init, out_shardings=sharding["optimizer"])(params)}
        state["params"] = params
        batch = jax.device_put(batch, jax.tree.map(lambda leaf: leaf.sharding, program.batch))
        step = Told(program.step)
        while True:
            state, _ = step(state, batch)


def maxtext() -> None:
    import maxtext
    from maxtext.trainers.pre_train import train

    jit = train.train_utils.jit_train_and_eval_step
    train.train_utils.jit_train_and_eval_step = lambda *args: (lambda pair: (Told(pair[0]), pair[1]))(jit(*args))
    settings = dict(
        run_name="cpu",
        base_output_directory=tempfile.mkdtemp(),
        hardware="cpu",
        decoder_block="llama2",
        base_emb_dim=D,
        base_mlp_dim=F,
        base_num_decoder_layers=LAYERS,
        base_num_query_heads=HEADS,
        base_num_kv_heads=HEADS,
        head_dim=K,
        vocab_size=V,
        per_device_batch_size=BATCH // DEVICES,
        max_target_length=SEQ,
        steps=1000,
        dataset_type="synthetic",
        enable_checkpointing=False,
        attention="dot_product",
        dtype="float32",
        weight_dtype="float32",
        remat_policy="full",
        ici_fsdp_parallelism=DEVICES,
        enable_goodput_recording=False,
        skip_jax_distributed_system=True,
        logits_via_embedding=False,
        log_config=False,
    )
    base = os.path.join(next(iter(maxtext.__path__)), "configs", "base.yml")
    train.main(["train", base, *(f"{key}={value}" for key, value in settings.items())])


def tunix() -> None:
    import jax
    import numpy as np
    import optax
    from flax import nnx
    from tunix.models.llama3 import model as llama
    from tunix.sft import peft_trainer, utils

    config = llama.ModelConfig(
        num_layers=LAYERS,
        vocab_size=V,
        embed_dim=D,
        hidden_dim=F,
        num_heads=HEADS,
        head_dim=K,
        num_kv_heads=HEADS,
        rope_theta=10000,
        norm_eps=1e-5,
        remat_config=llama.RematConfig.DECODER,
    )

    def model_input(x):
        mask = x.input_tokens != 0
        return dict(
            input_tokens=x.input_tokens,
            input_mask=x.input_mask,
            positions=utils.build_positions_from_mask(mask),
            attention_mask=utils.make_causal_attn_mask(mask),
        )

    tokens = np.random.default_rng(0).integers(1, V, (BATCH, SEQ)).astype(np.int32)
    batch = peft_trainer.TrainingInput(input_tokens=tokens, input_mask=np.ones((BATCH, SEQ), np.int32))
    mesh = jax.make_mesh((DEVICES, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        settings = peft_trainer.TrainingConfig(eval_every_n_steps=10000, max_steps=1000)
        trainer = peft_trainer.PeftTrainer(llama.Llama3(config, rngs=nnx.Rngs(0)), optax.adamw(1e-4), settings)
        jit = trainer.jit_train_and_eval_step

        def told(*args):
            step, evaluate = jit(*args)
            return Told(step), evaluate

        trainer.jit_train_and_eval_step = told
        trainer.with_gen_model_input_fn(model_input).train(itertools.repeat(batch), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maxtext", default="", help="interpreter with maxtext; none: without it")
    parser.add_argument("--tunix", default="", help="interpreter with google-tunix; none: without it")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2, help="steps of each side that are not counted")
    parser.add_argument("--mesh", default="fsdp=2", help="ours")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        {"ours": lambda: ours(args.mesh), "maxtext": maxtext, "tunix": tunix}[args.serve]()
        return

    sides = {"ours": sys.executable, "maxtext": args.maxtext, "tunix": args.tunix}
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}
    settings |= {"DECOUPLE_GCLOUD": "TRUE", "WANDB_MODE": "disabled"}
    runs, logs, seconds = {}, {}, {}
    try:
        for name, python in sides.items():
            if python:
                logs[name] = tempfile.TemporaryFile("w+")
                runs[name] = subprocess.Popen(
                    [python, __file__, f"--serve={name}", f"--mesh={args.mesh}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=logs[name],
                    text=True,
                    bufsize=1,
                    env=os.environ | settings,
                )
                seconds[name] = []
        for number in range(args.warmup + args.steps):
            for name, process in runs.items():
                process.stdin.write("\n")
                while not (line := process.stdout.readline()).startswith("TOOK"):
                    if not line:
                        logs[name].seek(0)
                        raise SystemExit(f"{logs[name].read()[-3000:]}\n{name} ended with {process.wait()}")
                if number >= args.warmup:
                    seconds[name].append([float(value) for value in line.split()[1:]])
    finally:
        for process in runs.values():
            process.kill()

    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in seconds.items()
    }
    print(
        f"| {BATCH} x {SEQ}, float32, {DEVICES} CPU devices, {args.steps} steps | s/step | least | CPU s | ours / it |"
    )
    print("|---|---|---|---|---|")
    for name, (clock, processors) in medians.items():
        least, ratio = min(values[0] for values in seconds[name]), medians["ours"][0] / clock
        print(f"| {name} | {clock:.2f} | {least:.2f} | {processors:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
