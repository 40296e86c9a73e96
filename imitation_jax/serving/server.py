"""Loads models, binds an address, and serves until SIGTERM."""

import dataclasses
import signal
import socket
from collections.abc import Mapping

import uvicorn
from absl import logging
from starlette.types import ASGIApp

from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.start import compute_dtype
from imitation_jax.serving.app import Limits, is_local, make_app
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.scheduler import Scheduler

KEY = "IMITATION_API_KEY"
CONTEXT = 2048  # where nobody says how much
SECONDS_TO_FINISH = 30  # what is under way at SIGTERM


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
    if not 0 <= settings.port < 2**16:  # some systems would take another one
        raise ValueError(f"--port={settings.port}: must be from 0 to 65535")
    with _bind(settings.host, settings.port, key) as bound:
        models = {name: _load(source, name, settings) for source, name in sources.items()}
        engines = {name: model.engine for name, model in models.items()}
        slots = {name: model.slots for name, model in models.items()}
        scheduler = Scheduler(engines, settings.rows, slots, settings.queue)
        try:
            scheduler.start()
            app = make_app(models, scheduler, Limits(settings.request_bytes, settings.seconds), key)
            _run(app, bound, list(models))
        finally:
            scheduler.close()


def _bind(host: str, port: int, key: str | None) -> socket.socket:
    if key is None and not is_local(host):
        raise ValueError(f"--host={host}: others could use this server; set {KEY} in the environment, or use 127.0.0.1")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # until then the system gives the address to others too
    except OSError as error:
        raise OSError(f"--host={host} --port={port}: cannot be served there ({error})") from None
    return bound


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


def http_server(app: ASGIApp) -> uvicorn.Server:
    """Not yet running."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return uvicorn.Server(config)


def _run(app: ASGIApp, bound: socket.socket, names: list[str]) -> None:
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    http = http_server(app)
    # One that comes before uvicorn listens to it, or that uvicorn raises once more at its end, is a good end too.
    signal.signal(signal.SIGTERM, lambda *_: setattr(http, "should_exit", True))
    logging.info("serving %s: chat page %s/, OpenAI's API %s/v1", ", ".join(names), url, url)
    http.run(sockets=[bound])
    logging.info("stopped")
