"""A training run from config to checkpoints, in the order in which it happens."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import flat
from imitation_jax.core.progress import progress
from imitation_jax.data.input.mixture import Source
from imitation_jax.data.input.stream import Stream
from imitation_jax.models import checkpoint
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.parallel import distributed, executables
from imitation_jax.parallel.global_batch import global_batch, share_of_rows
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.precision import compute_dtype
from imitation_jax.training.checkpoints import Checkpoints
from imitation_jax.training.config import check, claim, compare, sources
from imitation_jax.training.flops import peak_flops, training_flops_per_token
from imitation_jax.training.initial import new_model, random_params, saved_model
from imitation_jax.training.metrics import MetricsWriter
from imitation_jax.training.program import make_program
from imitation_jax.training.step import State
from imitation_jax.training.validation import make_validation

# (model at this step, step) -> numbers for metrics.jsonl, texts for TensorBoard
Evaluator = Callable[[LoadedModel, int], tuple[dict[str, float], dict[str, str]]]


def train(config: ConfigDict, workdir: str, cache_dir: str, evaluators: tuple[Evaluator, ...] = ()) -> bool:
    """Trains until the data or `config.steps` ends, going on from the newest checkpoint of `workdir`.

    Several processes call it together (`distributed.initialize`): process 0 writes metrics and config, all write
    checkpoints.

    Returns:
      True when the run is whole, False when SIGTERM ended it after a checkpoint.

    Raises:
      ValueError, OSError: a config, dataset, model or checkpoint that cannot be used, or that other processes do not
        have so, in one line.
      FloatingPointError: `config.max_skipped` steps in a row without a finite gradient.
    """
    folder = epath.Path(workdir).expanduser().resolve()
    terminated = distributed.catch_sigterm()

    # ------------------------------------------------------------------------------------------------------------------
    # Mesh, model, data
    # ------------------------------------------------------------------------------------------------------------------

    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    check(config, mesh)
    compare(folder, config)
    distributed.assert_equal("the config", dict(flat(config.to_dict())) | {"--workdir": workdir})
    best = "validation_loss" if config.data.validation else ""
    checkpoints = Checkpoints(folder, config.checkpoint.keep, best)
    resume_step = checkpoints.latest_step()
    held = {"checkpoints/": checkpoints.exist(), "newest": resume_step}
    distributed.assert_equal(f"what --workdir={folder} holds", held)

    # Where the weights come from, the first that applies:
    # 1. the newest whole checkpoint of this workdir: a run that was stopped goes on;
    # 2. model.init: a fine-tuning run starts;
    # 3. random weights of model.preset.
    model = new_model(config, mesh) if resume_step is None else saved_model(workdir, resume_step)
    dtype = compute_dtype(config.dtype)
    share, shares = share_of_rows(mesh)

    def open_stream(data: str | Mapping[str, Source], epochs: int, seed: int) -> Stream:
        stream = Stream(
            data,
            model.tokenizer,
            model.template,
            seq_len=config.data.seq_len,
            batch_size=config.batch_size,
            seed=seed,
            epochs=epochs,
            packing=config.data.packing,
            process_index=share,
            process_count=shares,
            workers=config.data.workers,
            cache_dir=config.data.cache_dir or cache_dir,
        )
        distributed.assert_equal("the data", {"content": stream.fingerprint})
        return stream

    stream = open_stream(sources(config), config.epochs, config.seed)
    total_steps = min(config.steps or stream.total_steps, stream.total_steps)
    _log_data(stream, f"{total_steps} steps of {config.batch_size} x {config.data.seq_len}")

    # ------------------------------------------------------------------------------------------------------------------
    # Step and state
    # ------------------------------------------------------------------------------------------------------------------

    program = make_program(config, model.family, model.config, mesh, total_steps)
    train_step = executables.load(program.step, (program.state, program.batch), mesh)
    train_step = distributed.compile_together(train_step, program.step, program.state, program.batch)
    batches = stream.iterator()
    if resume_step is None:
        params = model.params if config.model.init else random_params(model, program.sharding["params"], config.seed)
        init_optimizer = jax.jit(program.optimizer.init, out_shardings=program.sharding["optimizer"])
        state: State = {"params": params, "optimizer": init_optimizer(params)}
        del params
    else:
        state = checkpoints.restore(resume_step, program.state, batches)
        logging.info("resumed from step %d of %s", resume_step, folder)
    first_step = resume_step or 0
    model = dataclasses.replace(model, params=None)
    carried = checkpoint.model_to_json(model)
    if config.data.validation:
        stream = open_stream(config.data.validation, 1, 0)
        validation = make_validation(
            model, stream, dtype=dtype, kernel=config.attention, chunk=config.loss_chunk, mesh=mesh
        )
        evaluators = (validation, *evaluators)

    # ------------------------------------------------------------------------------------------------------------------
    # Loop
    # ------------------------------------------------------------------------------------------------------------------

    positions = config.batch_size * config.data.seq_len
    flops = training_flops_per_token(model.config, config.data.seq_len) * positions
    peak = peak_flops(jax.devices()[0].device_kind) * mesh.size
    skipped_in_a_row = 0
    last_metrics: dict[str, float] = {}

    def next_batch() -> tuple[dict[str, jax.Array], dict[str, Any], float]:
        start = time.monotonic()
        local = next(batches)
        waited = time.monotonic() - start
        return global_batch(local, mesh), batches.get_state(), waited

    if distributed.process_index() == 0:
        claim(folder, config)  # not before: a first start that failed must not bind the workdir to its mistake
    steps = range(first_step + 1, total_steps + 1)
    with MetricsWriter(folder, first_step) as writer:
        batch, stream_state, waited = next_batch() if steps else (None, None, 0.0)
        begin = time.monotonic()
        bar = progress(steps, total=total_steps, initial=first_step, desc="training", unit="step", lines=False)
        for step in bar:
            start = time.monotonic()
            distributed.heartbeat(f"step {step}")
            state, on_device = train_step(state, batch)
            consumed, next_waited = stream_state, 0.0
            if step < total_steps:  # fetched and sent while the device computes
                batch, stream_state, next_waited = next_batch()
            metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
            seconds = time.monotonic() - start
            metrics |= {
                "seconds": seconds,
                "data_seconds": waited,
                "loss_tokens_per_second": metrics["loss_tokens"] / seconds,
                "mfu": flops / seconds / peak,
            }
            waited = next_waited
            skipped_in_a_row = skipped_in_a_row + 1 if metrics["skipped"] else 0
            if skipped_in_a_row >= config.max_skipped:
                checkpoints.close()
                saved = checkpoints.latest_step()
                source = f" from orbax:{workdir}@{saved}" if saved else ""
                raise FloatingPointError(
                    f"{folder}: no finite gradient in {skipped_in_a_row} steps in a row up to step {step}; lower "
                    f"optimizer.learning_rate and start a new workdir{source}"
                )
            saves = step % config.checkpoint.every == 0 or step == total_steps
            # With validation every checkpoint is judged, so that the best one can be kept.
            if (config.evaluate.every and step % config.evaluate.every == 0) or (best and saves):
                metrics |= _evaluate(evaluators, dataclasses.replace(model, params=state["params"]), step, writer)
            writer.write(step, metrics)
            last_metrics = metrics
            if step % config.log_every == 0 or step == total_steps:
                left = (time.monotonic() - begin) / (step - first_step) * (total_steps - step)
                logging.info("step %d/%d, %s, %.0f s left", step, total_steps, _progress(metrics), left)
            stop = terminated(step) and step < total_steps  # asked once: a later signal's step would not be saved
            if saves or stop:
                writer.flush()
                score = {best: metrics[best]} if best in metrics else None
                checkpoints.save(step, state, carried, consumed, score)
            if stop:
                distributed.heartbeat("")  # a bucket may take its time
                checkpoints.close()
                logging.info("SIGTERM: step %d of %d is saved; the same command goes on from there", step, total_steps)
                return False
        distributed.heartbeat("")
        checkpoints.close()
    loss = f", loss {last_metrics['loss']:.4f}" if last_metrics else ", nothing was left to do"
    logging.info("done: %d steps%s; orbax:%s", total_steps, loss, workdir)
    return True


def _log_data(stream: Stream, steps: str) -> None:
    def line(stats):
        return ", ".join(f"{key} {value:,.4g}" for key, value in stats.items())

    if list(stream.sources) != ["data"]:
        for name, stats in stream.sources.items():
            logging.info("%s: %s", name, line(stats))
    logging.info("data: %s; %s, %d an epoch", line(stream.stats), steps, stream.steps_per_epoch)


def _evaluate(
    evaluators: tuple[Evaluator, ...], model: LoadedModel, step: int, writer: MetricsWriter
) -> dict[str, float]:
    """The evaluators' numbers; their texts go to TensorBoard."""
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        numbers, texts = evaluator(model, step)
        metrics |= numbers
        for name, text in texts.items():
            writer.write_text(step, name, text)
    return metrics


def _progress(metrics: dict[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.4f}"]
    if "validation_loss" in metrics:
        parts.append(f"validation {metrics['validation_loss']:.4f}")
    parts += [
        f"lr {metrics['learning_rate']:.2e}",
        f"grad {metrics['grad_norm']:.2f}",
        f"{metrics['loss_tokens_per_second']:.0f} loss tokens/s",
        f"padding {metrics['padding_share']:.1%}",
        f"mfu {metrics['mfu']:.0%}",
    ]
    return ", ".join(parts)
