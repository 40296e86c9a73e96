"""Memory of a train step as the TPU compiler lays it out, beside MaxText's; and how compile time grows with the model.

    python3.12 -m venv maxtext && maxtext/bin/pip install 'maxtext[tpu]==0.2.5'
    python tests/benchmarks/plan_memory.py --maxtext=maxtext/bin/python [--models=llama2_7b,llama2_70b] [--layers=2]
    python tests/benchmarks/plan_memory.py --compile_time

Llama 2 on v4:4x4x4 (MaxText's "v4-128", 64 chips), fsdp over all, rows of 2,048, AdamW in float32, computing in
bfloat16, full remat. All sides are compiled by the libtpu of the project's own environment, each in a process of its
own. "EasyLM-style" is a stand-in of ours, not EasyLM: the same layers, without a scan and each remat, attention whose
weights all exist at once, whole float32 logits, and the mean over rows of each row's mean loss. Unrolled, 32 layers
take the compiler more than 20 GB, so its figures are those of 4 and 8 layers carried on in a straight line: the peak is
the largest of several that grow by the layer, so it lies no lower. `--layers` cuts all models, for a quick look.
`--compile_time` compiles LLaMA 65B and 7B for v4:4x8x8 with the former's config.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 2**30
SLICE, MAXTEXT_SLICE, CHIPS, SEQ = "v4:4x4x4", "v4-128", 64, 2048
MAXTEXT_NAMES = {"llama2_7b": "llama2-7b", "llama2_70b": "llama2-70b"}
LAYERS = {"llama2_7b": 32, "llama2_70b": 80}
UNROLLED = (4, 8)  # layers that the EasyLM-style step is compiled with
ROWS = {"llama2_7b": 8, "llama2_70b": 2}  # a chip; more of 70B do not fit


def compile_and_say(lower) -> None:
    """Compiles what `lower()` lowers and prints what came of it as JSON."""
    import jax

    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        stats = lower().compile().memory_analysis()
        said = {name: getattr(stats, name) for name in dir(stats) if name.endswith("_in_bytes") or "total" in name}
    except jax.errors.JaxRuntimeError as error:
        said = {"error": str(error)}
    said |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - start_cpu, "jax": jax.__version__}
    print("SAID", json.dumps(said), flush=True)


def ours(model: str, layers: int, rows: int) -> None:
    import dataclasses

    import jax

    from imitation_jax.models.families import llama
    from imitation_jax.parallel.mesh import make_mesh
    from imitation_jax.parallel.topology import topology_devices
    from imitation_jax.training.config import get_config
    from imitation_jax.training.program import make_program

    config = get_config()
    mesh = make_mesh(config.mesh, topology_devices(SLICE))
    config.batch_size, config.data.seq_len = rows * mesh.size, SEQ
    architecture = dataclasses.replace(llama.PRESETS[model], num_hidden_layers=layers)
    program = make_program(config, llama, architecture, mesh, 1000)
    with jax.set_mesh(mesh):
        compile_and_say(lambda: program.step.lower(program.state, program.batch))


def easylm_style(model: str, layers: int, rows: int) -> None:
    import dataclasses

    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from imitation_jax.models.attention import attention
    from imitation_jax.models.families import llama
    from imitation_jax.models.load import abstract_params
    from imitation_jax.parallel.mesh import make_mesh
    from imitation_jax.parallel.sharding import BATCH
    from imitation_jax.parallel.topology import topology_devices
    from imitation_jax.training.step import abstract_state, state_shardings

    mesh = make_mesh("fsdp=-1", topology_devices(SLICE))
    config = dataclasses.replace(llama.PRESETS[model], num_hidden_layers=layers)
    layer_graph = nnx.graphdef(nnx.eval_shape(lambda: llama.Layer(config, nnx.Rngs(0))))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-5))

    def unstacked(leaf):
        sharding = NamedSharding(mesh, P(*leaf.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)

    params = abstract_params(llama, config, mesh)
    params["layers"] = {str(number): jax.tree.map(unstacked, params["layers"]) for number in range(layers)}
    sharding = state_shardings(optimizer, params, mesh)
    state = abstract_state(optimizer.init, params, sharding)
    tokens = jax.ShapeDtypeStruct((rows * mesh.size, SEQ), jnp.int32, sharding=NamedSharding(mesh, BATCH))

    def loss_fn(params, tokens_BS, targets_BS, mask_BS):
        positions_BS = jnp.broadcast_to(jnp.arange(SEQ), tokens_BS.shape)
        angles_BSK = positions_BS[..., None].astype(jnp.float32) * llama.rope_frequencies(config)

        def attend(q_BSHK, k_BSNK, v_BSNK, _):
            return attention(q_BSHK, k_BSNK, v_BSNK, positions_BS=positions_BS, kernel="xla")

        def run(x_BSD, weights):
            # Cast first, so that gradients are added up in bfloat16.
            layer = nnx.merge(layer_graph, nnx.State(jax.tree.map(lambda w: w.astype(x_BSD.dtype), weights)))
            return layer(x_BSD, jnp.sin(angles_BSK), jnp.cos(angles_BSK), attend, None)[0]

        x_BSD = params["embed"].astype(jnp.bfloat16)[tokens_BS]
        for number in range(layers):
            run_again = jax.checkpoint(run, policy=jax.checkpoint_policies.nothing_saveable)
            x_BSD = run_again(x_BSD, params["layers"][str(number)])
        x_BSD = llama.rms_norm(x_BSD, params["final_norm"], config.rms_norm_eps)
        logits_BSV = jnp.einsum("bsd,vd->bsv", x_BSD, params["unembed"].astype(x_BSD.dtype)).astype(jnp.float32)
        gold_BS = jnp.take_along_axis(jax.nn.log_softmax(logits_BSV), targets_BS[..., None], -1)[..., 0]
        loss_B = -jnp.sum(gold_BS * mask_BS, -1) / jnp.maximum(jnp.sum(mask_BS, -1), 1e-10)
        correct_BS = (jnp.argmax(logits_BSV, -1) == targets_BS) * mask_BS
        return jnp.mean(loss_B), jnp.mean(jnp.sum(correct_BS, -1) / jnp.maximum(jnp.sum(mask_BS, -1), 1e-10))

    def step(state, tokens_BS, targets_BS, mask_BS):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        metrics, grads = grad_fn(state["params"], tokens_BS, targets_BS, mask_BS)
        updates, optimizer_state = optimizer.update(grads, state["optimizer"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer_state}, metrics

    jitted = jax.jit(step, donate_argnums=0, out_shardings=(sharding, None))
    with jax.set_mesh(mesh):
        compile_and_say(lambda: jitted.lower(state, tokens, tokens, tokens))


def maxtext(model: str, layers: int, rows: int) -> None:
    import maxtext
    from maxtext.trainers.pre_train import train_compile

    compile_theirs = train_compile.jit_and_compile

    def jit_and_compile(*args):
        class Lowered:  # theirs lowers and compiles in one
            compile = staticmethod(lambda: compile_theirs(*args))

        compile_and_say(Lowered)
        os._exit(0)

    train_compile.jit_and_compile = jit_and_compile
    settings = dict(
        run_name="plan",
        base_output_directory=tempfile.mkdtemp(),
        compile_topology=MAXTEXT_SLICE,
        compile_topology_num_slices=1,
        model_name=MAXTEXT_NAMES[model],
        per_device_batch_size=rows,
        max_target_length=SEQ,
        remat_policy="full",
        attention="flash",
        dataset_type="synthetic",
        enable_checkpointing=False,
        enable_goodput_recording=False,
        skip_jax_distributed_system=True,
        ici_fsdp_parallelism=-1,
    )
    if layers != LAYERS[model]:
        settings |= dict(base_num_decoder_layers=layers, override_model_config=True)
    base = os.path.join(next(iter(maxtext.__path__)), "configs", "base.yml")
    train_compile.main(["train_compile", base, *(f"{key}={value}" for key, value in settings.items())])


def of_config(model: str) -> None:
    """The step of a size as LLaMA 65B's config has it."""
    import jax

    from imitation_jax.models.families import llama
    from imitation_jax.parallel.mesh import make_mesh
    from imitation_jax.parallel.topology import topology_devices
    from imitation_jax.training.program import make_program

    config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "llama_65b.py"))["get_config"]()
    mesh = make_mesh(config.mesh, topology_devices(config.plan.topology))
    program = make_program(config, llama, llama.PRESETS[model], mesh, 1000)
    with jax.set_mesh(mesh):
        compile_and_say(lambda: program.step.lower(program.state, program.batch))


def compiled(python: str, side: str, *args: object) -> dict:
    """What `side` says, in a process of its own."""
    library = Path(importlib.util.find_spec("libtpu").origin).with_name("libtpu.so")
    quiet = {"JAX_PLATFORMS": "cpu", "DECOUPLE_GCLOUD": "TRUE", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    quiet |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_LIBRARY_PATH": str(library)}
    command = [python, __file__, f"--serve={side}", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    if not said:
        raise SystemExit(f"{done.stderr[-3000:]}\n{side} ended with {done.returncode}")
    return json.loads(said[-1].removeprefix("SAID "))


def sizes(said: dict) -> tuple[float, float, float]:
    """Arguments, temporaries and peak in GiB; the temporaries count buffers in other memories than HBM too."""
    peak = max(said["peak_memory_in_bytes"], said.get("total_allocation_bytes", 0))
    return said["argument_size_in_bytes"] / GIB, said["temp_size_in_bytes"] / GIB, peak / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maxtext", default="", help="interpreter with maxtext; none: without it")
    parser.add_argument("--models", default="llama2_7b,llama2_70b")
    parser.add_argument("--sides", default="ours,maxtext,easylm_style")
    parser.add_argument("--layers", type=int, default=0, help="of every model; 0: as many as it has")
    parser.add_argument("--compile_time", action="store_true")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sides = {"ours": ours, "easylm_style": easylm_style, "maxtext": maxtext, "of_config": of_config}
    if args.serve:
        sides[args.serve](*(int(arg) if arg.isdigit() else arg for arg in args.args))
        return

    print(f"libtpu {importlib.metadata.version('libtpu')}", flush=True)
    if args.compile_time:
        print("| on v4:4x8x8 | s to lower and compile | s of all processors |")
        print("|---|---|---|")
        times = []
        for model in ("llama_7b", "llama_65b"):
            said = compiled(sys.executable, "of_config", model)
            times.append((said["seconds"], said["cpu"]))
            print(f"| {model} | {said['seconds']:.0f} | {said['cpu']:.0f} |", flush=True)
        print("| 65B / 7B | {:.2f} | {:.2f} |".format(*(large / small for small, large in zip(*times, strict=True))))
        return

    print(f"| model on {SLICE}, rows of {SEQ} | side | jax | arguments | temp | peak, GiB a chip | ours / it | s |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.models.split(","):
        layers, mine = args.layers or LAYERS[model], None
        for side in args.sides.split(","):
            python = args.maxtext if side == "maxtext" else sys.executable
            if not python:
                continue
            depths = UNROLLED if side == "easylm_style" and layers > max(UNROLLED) else (layers,)
            said = [compiled(python, side, model, depth, ROWS[model]) for depth in depths]
            what = f"{side} from {' and '.join(map(str, depths))} layers" if len(depths) > 1 else side
            row = f"| {model}, {layers} layers, {ROWS[model]} rows a chip | {what} | {said[0]['jax']} "
            if errors := [each["error"] for each in said if "error" in each]:
                print(f"{row}| {errors[0].partition(chr(10))[0][:300]} |", flush=True)
                continue
            found = sizes(said[-1])
            if len(depths) > 1:
                further = (layers - depths[1]) / (depths[1] - depths[0])
                found = [b + further * (b - a) for a, b in zip(sizes(said[0]), found, strict=True)]
            mine = mine or found[2]
            cells = " | ".join(f"{size:.2f}" for size in found)
            print(f"{row}| {cells} | {mine / found[2]:.2f} | {sum(each['seconds'] for each in said):.0f} |", flush=True)


if __name__ == "__main__":
    main()
