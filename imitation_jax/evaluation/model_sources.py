"""Which models `--model` means: globs and all steps of a run spelled out, each with the name it is filed under."""

import re
from collections.abc import Sequence

from absl import logging
from etils import epath

from imitation_jax.evaluation.results import model_name, safe_name
from imitation_jax.models.checkpoint import steps
from imitation_jax.models.load import split_source

WILD = re.compile(r"[*?[]")


def named_sources(models: Sequence[str]) -> dict[str, str]:
    """{source: name} of every model, in the order given; what a glob matches comes in natural order.

    Args:
      models: `hf:DIR`, `gguf:FILE` or `orbax:WORKDIR[@STEP]`, where the path may be a glob and the step `*`, all of a
        run. What a glob matches is filed under the path from its first wildcard on: `hf:runs/*/export` as
        "a_export", "b_export"; anything else under the last part of its path.

    Raises:
      ValueError: no such kind of source, nothing that matches, or two models of one name.
      FileNotFoundError: all steps of a run without any.
    """
    sources: dict[str, str] = {}
    for model in models:
        for source, name in _expanded(model):
            sources.setdefault(source, name)
    names = list(sources.values())
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise ValueError(f"--model: two models would be filed as {twice!r}; evaluate one of them with a --config.name")
    return sources


def _expanded(model: str) -> list[tuple[str, str]]:
    kind, where = split_source(model)
    step = ""
    if kind == "orbax" and (parts := re.fullmatch(r"(.+)@(\d+|\*)", where, re.DOTALL)):
        where, step = parts.groups()
    if not WILD.search(where) or epath.Path(where).expanduser().exists():
        places = {where: model_name(f"{kind}:{where}")}
        if step == "*" and not steps(where):
            raise FileNotFoundError(
                f"{where}/checkpoints: no checkpoint there; write orbax:WORKDIR@* of a training run"
            )
    else:
        places = _matches(kind, where)
        if not places:
            raise ValueError(f"--model={model}: matches no model")
    if step == "*":
        return [(f"{kind}:{place}@{k}", f"{name}@{k}") for place, name in places.items() for k in steps(place)]
    at = f"@{step}" if step else ""
    return [(f"{kind}:{place}{at}", name + at) for place, name in places.items()]


def _matches(kind: str, where: str) -> dict[str, str]:
    """{path: name} of the models that a glob matches; what else it matches is left out and said."""
    parts = where.rstrip("/").split("/")
    first = next(index for index, part in enumerate(parts) if WILD.search(part))
    root = epath.Path("/".join(parts[:first]) or ("/" if where.startswith("/") else ".")).expanduser()
    places = {}
    for path in root.glob("/".join(parts[first:])):
        if kind == "orbax":
            good = (path / "checkpoints").exists() and bool(steps(str(path)))
        else:
            good = not path.is_dir() if kind == "gguf" else (path / "config.json").exists()
        if good:
            name = str(path.relative_to(root))
            places[str(path)] = safe_name(name.removesuffix(".gguf") if kind == "gguf" else name)
        else:
            logging.info("--model=%s:%s: %s holds no model, left out", kind, where, path)
    return dict(sorted(places.items(), key=lambda place: _natural(place[1])))


def _natural(text: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
