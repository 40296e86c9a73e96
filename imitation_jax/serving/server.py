"""Loads models, binds an address, and serves until SIGTERM."""

import dataclasses
from collections.abc import Mapping

from imitation_jax.core import web
from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.precision import compute_dtype
from imitation_jax.serving.app import Limits, make_app
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.scheduler import Scheduler

KEY = "IMITATION_API_KEY"
CONTEXT = 2048  # where nobody says how much


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `serve`, which say what they mean."""

    host: str
    port: int
    template: str
    compute_dtype: str
    mesh: str
    memory_gib: float
    rows: int
    context: int
    queue: int
    request_bytes: int
    seconds: float


def serve(sources: Mapping[str, str], settings: Settings, key: str | None) -> None:
    """Serves models until SIGTERM or SIGINT; then requests under way have half a minute to finish.

    Args:
      sources: {source as `load_model` takes it: name}.
      settings: see there.
      key: without one, only this machine is served.

    Raises:
      ValueError, OSError: a setting out of range, a public address without a key or one that is taken, or a model that
        cannot be loaded; in one line.
    """
    if not sources:
        raise ValueError("--model is empty; it takes hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    for name in ("rows", "queue", "request_bytes", "seconds"):
        if not getattr(settings, name) > 0:
            raise ValueError(f"--{name}={getattr(settings, name)}: must be more than 0")
    with web.bind(settings.host, settings.port, key, KEY) as bound:
        models = {name: _load(source, name, settings) for source, name in sources.items()}
        engines = {name: model.engine for name, model in models.items()}
        slots = {name: model.slots for name, model in models.items()}
        scheduler = Scheduler(engines, settings.rows, slots, settings.queue)
        try:
            scheduler.start()
            app = make_app(models, scheduler, Limits(settings.request_bytes, settings.seconds), key)
            web.run(app, bound, f"serving {', '.join(models)}: chat page {{url}}/, OpenAI's API {{url}}/v1")
        finally:
            scheduler.close()


def _load(source: str, name: str, settings: Settings) -> ServedModel:
    mesh = make_mesh(settings.mesh)
    model = load_model(source, mesh, template=settings.template)
    dtype = compute_dtype(settings.compute_dtype).name
    engine = Engine(model, mesh, settings.rows, settings.memory_gib, dtype)
    most = model.config.max_position_embeddings
    slots = settings.context or min(CONTEXT, most)
    if not 2 <= slots <= most:
        raise ValueError(f"--context={slots}: {name} has {most} positions; choose from 2 to that")
    return ServedModel(name, engine, slots)
