"""A model from wherever it is: `hf:DIR`, `gguf:FILE` or `orbax:WORKDIR[@STEP]`; and out again."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh

from imitation_jax.models import checkpoint, families, huggingface
from imitation_jax.models.gguf import open_gguf
from imitation_jax.models.loaded_model import LoadedModel, abstract_params
from imitation_jax.parallel import distributed
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import GPT2_FILES, Tokenizer, load_tokenizer

# What is read of a Hugging Face folder.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    *(name for names in GPT2_FILES for name in names),
)


def split_source(source: str) -> tuple[str, str]:
    """The kind of a source, "hf", "gguf" or "orbax", and where it is.

    Raises:
      ValueError: another kind, or no place.
    """
    kind, _, where = source.partition(":")
    if kind not in ("hf", "gguf", "orbax") or not where:
        raise ValueError(f"model {source!r}: write hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    return kind, where


def identify(source: str) -> str | list[list]:
    """A JSON value that changes whenever the model's files do: their names, sizes and times.

    Raises:
      FileNotFoundError, ValueError: no such model, or no such kind of source.
    """
    kind, where = split_source(source)
    if kind == "orbax":
        return checkpoint.commit(*checkpoint.locate(where))
    path = Path(where).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    # A folder may hold results and a training run as well, which are no part of the model.
    files = {file for pattern in MODEL_FILES for file in path.glob(pattern)} if kind == "hf" else {path}
    if not files:
        raise FileNotFoundError(f"{path}: holds no model files")
    stats = [(file.name, file.stat()) for file in sorted(files)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def load_model(
    source: str, mesh: Mesh | None = None, param_dtype: Any = jnp.float32, template: str = "model"
) -> LoadedModel:
    """Reads config, weights, tokenizer and chat template; of several processes, each from files of the same sizes.

    Args:
      source: `hf:DIR`, `gguf:FILE` or `orbax:WORKDIR[@STEP]` (the newest step where none is given).
      mesh: where the parameters are born sharded; default one of all devices.
      param_dtype: what the weights are kept in.
      template: see `load_template`; "model" is the one that comes with the model.

    Raises:
      ValueError, FileNotFoundError: one line that names the file and what is wrong with it.
    """
    mesh = make_mesh() if mesh is None else mesh
    kind, where = split_source(source)
    if distributed.several():
        identity = identify(source)
        files = {"checkpoint": identity} if isinstance(identity, str) else {name: size for name, size, _ in identity}
        distributed.assert_equal(source, files)
    if kind == "orbax":
        workdir, step = checkpoint.locate(where)
        model = checkpoint.read_model(workdir, step)
        check_fit(model.tokenizer, model.config, source)
        abstract = abstract_params(model.family, model.config, mesh, param_dtype)
        params = checkpoint.read_params(workdir, step, abstract)
        chat = model.template if template == "model" else load_template(template, model.tokenizer)
        return dataclasses.replace(model, params=params, template=chat)
    path = Path(where).expanduser()
    if kind == "hf":
        hf, tensors = huggingface.read_config(path), huggingface.open_tensors(path)
    else:
        hf, tensors = open_gguf(path)
    try:
        family = families.find(hf.get("model_type"))
        config = family.config_from_hf(hf)
    except KeyError as error:
        raise ValueError(f"{path}: config.json lacks {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tokenizer = load_tokenizer(path)
    chat = load_template(template, tokenizer)
    check_fit(tokenizer, config, source)
    abstract = abstract_params(family, config, mesh, param_dtype)
    params = huggingface.load_params(family.HUGGINGFACE, abstract, tensors, str(path))
    return LoadedModel(family, config, params, tokenizer, chat)


def check_fit(tokenizer: Tokenizer, config: Any, source: str) -> None:
    """Refuses a tokenizer with more ids than the model has embeddings.

    Raises:
      ValueError: with both numbers.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} ids but the model's vocabulary is "
            f"{config.vocab_size}; they do not belong together"
        )


def save_model(model: LoadedModel, target: str) -> None:
    """Writes `hf:DIR` (a folder that transformers loads) or `orbax:DIR` (step 0 of a workdir).

    Raises:
      ValueError: another kind of target.
    """
    kind, _, where = target.partition(":")
    if kind == "hf" and where:
        folder = Path(where).expanduser()
        tokenizer = Tokenizer.from_files(model.tokenizer.files())
        if model.template is not None:
            tokenizer.chat_template = model.template.source
            if model.template.apart:
                logging.warning(
                    "%s: this chat template encodes each turn on its own, and transformers encodes them together: "
                    "some ids at the turns' borders differ there",
                    folder,
                )
        tokenizer.save(folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)  # an earlier export's, which would be read instead
        huggingface.save_params(model.family.HUGGINGFACE, model.params, folder, hf_config(model))
    elif kind == "orbax" and where:
        checkpoint.save_model(where, model)
    else:
        raise ValueError(f"--to={target!r}: write hf:DIR or orbax:DIR")


def hf_config(model: LoadedModel) -> dict[str, Any]:
    """The model's `config.json`, special ids included."""
    ids = {f"{name}_token_id": getattr(model.tokenizer, f"{name}_id") for name in ("bos", "eos", "pad")}
    return {**model.family.config_to_hf(model.config), **ids}
