"""The engines of one model: it is loaded once, when the first engine is asked for, and at most one engine is in memory.

On several processes process 0 evaluates: it broadcasts which model and which engine are next and what it asks its
engine, and the others load and compute the same (`follow`).
"""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.evaluation.worker_processes import BroadcastEngine, answer
from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import LoadedModel, load_model
from imitation_jax.parallel import distributed
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template


class EngineKey(NamedTuple):
    """What an engine is made for: tasks of one key share an engine."""

    mesh: str
    template: str
    compute_dtype: str
    batch_size: int
    memory_gib: float

    @classmethod
    def of(cls, config: ConfigDict) -> "EngineKey":
        """From a task's config."""
        return cls(*(config[key] for key in cls._fields))


class Engines:
    """Calling it with a key gives that engine; the one before is gone then."""

    def __init__(self, source: str, keys: Collection[EngineKey], needs_template: str = ""):
        """Args:
        source: of the model, as `load_model` takes it.
        keys: all that will be asked for.
        needs_template: a task that needs the model's own chat template, if there is one.
        """
        self._source, self._keys, self._needs_template = source, set(keys), needs_template
        self._model: LoadedModel | None = None
        self._engine: Engine | None = None
        self._current: EngineKey | None = None
        _broadcast({"source": source, "keys": sorted(self._keys)})

    def __call__(self, key: EngineKey) -> Engine | BroadcastEngine:
        """Raises ValueError, OSError: the model cannot be loaded, has no template where it needs one, or a mesh that
        does not divide it."""
        _broadcast({"engine": key})
        if self._current != key:
            self._engine = None  # the next one needs its memory
            model = self._model or self._load(key.mesh)
            # A second engine is made from the weights as they were read.
            self._model = model if len(self._keys) > 1 else None
            if key.template != "model":
                model = dataclasses.replace(model, template=load_template(key.template, model.tokenizer))
            sizes = {"batch_size": key.batch_size, "memory_gib": key.memory_gib, "compute_dtype": key.compute_dtype}
            self._engine, self._current = Engine(model, make_mesh(key.mesh), **sizes), key
        first = distributed.several() and distributed.process_index() == 0
        return BroadcastEngine(self._engine) if first else self._engine

    def _load(self, mesh: str) -> LoadedModel:
        model = load_model(self._source, make_mesh(mesh))
        if self._needs_template and not model.template:
            raise ValueError(
                f"{self._source}: has no chat template, and {self._needs_template} needs one here; "
                "give --config.template=plain (USER: / GPT:) or a .jinja file"
            )
        return model


def follow() -> None:
    """What the other processes do while the first one evaluates: load and ask what it does, until it is done."""
    engines = engine = None
    while (call := distributed.broadcast()) is not None:
        if "source" in call:
            engine, engines = None, Engines(call["source"], [EngineKey(*key) for key in call["keys"]])
        elif "engine" in call:
            engine = engines(EngineKey(*call["engine"]))
        else:
            answer(call, engine)


def _broadcast(call: dict) -> None:
    if distributed.process_index() == 0:
        distributed.broadcast(call)
