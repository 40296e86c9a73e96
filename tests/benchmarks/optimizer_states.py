"""What an optimiser's state in bfloat16 costs in quality: a small student from random weights, several seeds.

    python tests/benchmarks/optimizer_states.py [--dialogues=prepared/dialogues.jsonl] [--steps=1500] [--seeds=3]

Each rule trains with its moments in float32, in bfloat16 rounded at random (`optimizer.state_dtype`) and in bfloat16
rounded to nearest, which is here to show what goes wrong. A seed is the start and the order of the data, the same for
all three. Prints a table of means over the seeds, with standard deviations: the loss of the last tenth of the steps,
the loss on dialogues held out, the same less float32's of the same seed, the second moments (their geometric mean)
against float32's, and bytes of state a weight.
"""

import argparse
import functools
import json
import statistics
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import imitation_jax.data
from imitation_jax.data.input.stream import Stream
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import abstract_params
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer
from imitation_jax.training import config as training
from imitation_jax.training.optimizer import make_optimizer, make_schedule
from imitation_jax.training.step import loss_sums, make_train_step, state_shardings

STUDENT = llama.LlamaConfig(1024, 64, 172, 2, 4, 4, 16, 128, tie_word_embeddings=True)
BATCH, SEQ = 4, 128
RULES = {
    "adamw, b2 0.95": {"name": "adamw", "learning_rate": 1e-3},
    "adamw, b2 0.999": {"name": "adamw", "learning_rate": 1e-3, "b2": 0.999},
    "weight_magnitude": {"name": "weight_magnitude", "learning_rate": 1e-2},
}
STATES = ("float32", "bfloat16", "bfloat16 to nearest")


def to_nearest(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The rule with moments kept in bfloat16 as a cast rounds them."""

    def cast(state, dtype):
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates, state, params=None):
        updates, new = rule.update(updates, cast(state, jnp.float32), params)
        return updates, cast(new, jnp.bfloat16)

    return optax.GradientTransformation(lambda params: cast(rule.init(params), jnp.bfloat16), update)


def make_tokenizer(texts) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=STUDENT.vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})


LOSS = {"dtype": jnp.float32, "remat": "none", "kernel": "auto", "chunk": SEQ}


@jax.jit
def judge(params, batch):
    return loss_sums(STUDENT, params, batch, **LOSS)[0]


@functools.cache
def program(name: str, state_dtype: str, steps: int, mesh):
    """The optimiser, the jitted step, and where its state lives."""
    config = training.get_config().optimizer
    config.update(RULES[name])
    config.state_dtype = "float32" if state_dtype == "bfloat16 to nearest" else state_dtype
    schedule = make_schedule(config, steps)
    rule = make_optimizer(config, schedule)
    rule = to_nearest(rule) if state_dtype == "bfloat16 to nearest" else rule
    sharding = state_shardings(rule, abstract_params(llama, STUDENT, mesh), mesh)
    options = {"accumulation": 1, "schedule": schedule, "state_sharding": sharding, "mesh": mesh}
    return rule, make_train_step(STUDENT, rule, **LOSS, **options), sharding


def run(name: str, state_dtype: str, seed: int, batches: list, held_out: list, mesh) -> dict:
    """Losses, second moments of the layers' weights and bytes of one run."""
    rule, step, sharding = program(name, state_dtype, len(batches), mesh)
    params = jax.device_put(decoder.init(STUDENT, jax.random.key(seed)), sharding["params"])
    state = {"params": params, "optimizer": jax.jit(rule.init, out_shardings=sharding["optimizer"])(params)}
    del params
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    summed = sum(float(judge(state["params"], batch)) for batch in held_out)
    second_moment = "nu" if RULES[name]["name"] == "adamw" else "second_moment"
    ((_, moments),) = optax.tree.get_all_with_path(state["optimizer"], second_moment)
    moments = [np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(moments["layers"])]
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(state["optimizer"]))
    return {
        "loss": float(np.mean(jax.device_get(losses[-len(losses) // 10 :]))),
        "held_out": summed / sum(float(batch["loss_mask"].sum()) for batch in held_out),
        "moments": np.concatenate(moments),
        "bytes": state_bytes / sum(x.size for x in jax.tree.leaves(state["params"])),
    }


def main() -> None:
    demo = Path(imitation_jax.data.__path__[0]) / "demo" / "train.jsonl"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", default=str(demo))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()

    mesh = make_mesh("fsdp=1", jax.devices()[:1])
    jax.set_mesh(mesh)
    lines = Path(args.dialogues).read_text(encoding="utf-8").splitlines(keepends=True)
    texts = (message["content"] for line in lines[1::4] for message in json.loads(line)["messages"])
    tokenizer = make_tokenizer(texts)
    template = load_template("plain", tokenizer)
    options = {"seq_len": SEQ, "batch_size": BATCH}
    rows = {(rule, state): [] for rule in RULES for state in STATES}
    with tempfile.TemporaryDirectory() as folder:
        parts = {"train": [x for n, x in enumerate(lines) if n % 20], "held_out": lines[::20]}
        for name, part in parts.items():
            (Path(folder) / name).with_suffix(".jsonl").write_text("".join(part), encoding="utf-8")

        def stream(name, seed, epochs):
            path = str(Path(folder) / f"{name}.jsonl")
            return Stream(path, tokenizer, template, **options, seed=seed, epochs=epochs, cache_dir=folder)

        whole = stream("held_out", 0, 1)
        held_out = [whole[step] for step in range(min(whole.total_steps, 100))]
        epochs = -(-args.steps // stream("train", 0, 1).steps_per_epoch)
        for seed in range(args.seeds):
            order = stream("train", seed, epochs)
            batches = [order[step] for step in range(args.steps)]
            for rule in RULES:
                for state in STATES:
                    rows[rule, state].append(run(rule, state, seed, batches, held_out, mesh))
                    got = rows[rule, state][-1]
                    print(
                        f"seed {seed}, {rule}, {state}: loss {got['loss']:.4f}, held out {got['held_out']:.4f}",
                        flush=True,
                    )

    def spread(values, sign=""):
        values = list(values)
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        return f"{statistics.mean(values):{sign}.4f} ± {deviation:.4f}"

    print(f"\n{args.steps} steps of {BATCH} x {SEQ}, {epochs} epochs, {args.seeds} seeds")
    print("| rule | state | loss | held out | less float32's | second moments | bytes a weight |")
    print("|---|---|---|---|---|---|---|")
    for (rule, state), runs in rows.items():
        base = rows[rule, "float32"]
        less = spread((a["held_out"] - b["held_out"] for a, b in zip(runs, base, strict=True)), "+")
        seen = [(a["moments"], b["moments"]) for a, b in zip(runs, base, strict=True)]
        ratio = np.exp(np.mean([np.mean(np.log(a / b)[(a > 0) & (b > 0)]) for a, b in seen]))
        loss, held_out = (spread(one[key] for one in runs) for key in ("loss", "held_out"))
        print(f"| {rule} | {state} | {loss} | {held_out} | {less} | {ratio:.3f} | {runs[0]['bytes']:.2f} |")


if __name__ == "__main__":
    main()
