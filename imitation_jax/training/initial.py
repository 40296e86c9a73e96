"""The model that a run starts from, or goes on with."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from imitation_jax.models import checkpoint, decoder, families, load
from imitation_jax.models.loaded_model import LoadedModel, abstract_params
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer


def new_model(config: ConfigDict, mesh: Mesh) -> LoadedModel:
    """The model that a new run starts from; its params are None where they will be random.

    Raises:
      ValueError: a preset that does not exist, that `mesh` does not divide, or that is not the architecture of
        `model.init`; rows longer than the model; or no chat template.
    """
    family, preset = families.preset(config.model.preset) if config.model.preset else (None, None)
    if preset:
        check_length(preset, config)
        abstract_params(family, preset, mesh)  # refuses the mesh before the data is read
    if config.model.init:
        model = load.load_model(config.model.init, mesh, template=config.model.template)
        expected = preset or model.config
        if model.config != expected:
            ours, theirs = dataclasses.asdict(model.config), dataclasses.asdict(expected)
            differ = [key for key in ours if ours[key] != theirs.get(key, ours[key])]
            wrong = ", ".join(f"{key} {ours[key]!r} is not {theirs[key]!r}" for key in differ)
            raise ValueError(
                f"model.init={config.model.init} is not a {config.model.preset}: {wrong}; "
                "use that size's config, or --config.model.preset="
            )
        check_length(model.config, config)
        if config.model.tokenizer:
            tokenizer = load_tokenizer(config.model.tokenizer)
            load.check_fit(tokenizer, model.config, config.model.tokenizer)
            template = load_template(config.model.template, tokenizer)
            model = dataclasses.replace(model, tokenizer=tokenizer, template=template)
        check_template(model, config.model.tokenizer or config.model.init)
        return model
    if not config.model.preset or not config.model.tokenizer:
        raise ValueError(
            "model.init is empty: give --config.model.init=hf:DIR, gguf:FILE or orbax:WORKDIR, "
            "or model.preset and model.tokenizer for random weights"
        )
    tokenizer = load_tokenizer(config.model.tokenizer)
    load.check_fit(tokenizer, preset, config.model.tokenizer)
    template = load_template(config.model.template, tokenizer)
    model = LoadedModel(family, preset, None, tokenizer, template)
    check_template(model, config.model.tokenizer)
    return model


def check_length(model_config: Any, config: ConfigDict) -> None:
    """Refuses rows with positions that a model never learned; rotations go on for ever.

    Raises:
      ValueError: with both lengths.
    """
    most = model_config.max_position_embeddings
    if model_config.learned_positions and config.data.seq_len > most:
        raise ValueError(
            f"data.seq_len={config.data.seq_len}: the model has learned {most} positions; choose {most} or less"
        )


def check_template(model: LoadedModel, where: str) -> None:
    """Refuses a model that no dialogue can be written for.

    Raises:
      ValueError: naming where the template was looked for, and the choices.
    """
    if model.template is None:
        raise ValueError(
            f"model.template='model': {where} has no chat template; "
            "give --config.model.template=plain (USER: / GPT:) or a .jinja file"
        )


def saved_model(workdir: str, step: int) -> LoadedModel:
    """The model of a checkpoint, without its weights.

    Raises:
      ValueError: a damaged checkpoint, or one that no run wrote.
    """
    model = checkpoint.read_model(workdir, step)
    if model.template is None:
        raise ValueError(
            f"{workdir}: holds a model without a chat template, which no run wrote; choose another --workdir, "
            f"and start from it with --config.model.init=orbax:{workdir} --config.model.template=plain"
        )
    return model


def random_params(model: LoadedModel, sharding: Any, seed: int) -> Any:
    """Parameters born in their shards."""
    init = jax.jit(lambda key: decoder.init(model.config, key), out_shardings=sharding)
    return init(jax.random.key(seed))
