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
    init, own_tokenizer = config.model.init, config.model.tokenizer
    family, preset = families.preset(config.model.preset) if config.model.preset else (None, None)
    if preset:
        check_length(preset, config)
        abstract_params(family, preset, mesh)  # refuses the mesh before the data is read
    if init:
        model = load.load_model(init, mesh, template=config.model.template)
        if preset and model.config != preset:
            ours, expected = dataclasses.asdict(model.config), dataclasses.asdict(preset)
            differing = [key for key in ours if ours[key] != expected.get(key, ours[key])]
            wrong = ", ".join(f"{key} {ours[key]!r} is not {expected[key]!r}" for key in differing)
            raise ValueError(
                f"model.init={init} is not a {config.model.preset}: {wrong}; "
                "use that size's config, or --config.model.preset="
            )
        check_length(model.config, config)
    elif preset and own_tokenizer:
        model = LoadedModel(family, preset, None, None, None)
    else:
        raise ValueError(
            "model.init is empty: give --config.model.init=hf:DIR, gguf:FILE or orbax:WORKDIR, "
            "or model.preset and model.tokenizer for random weights"
        )
    if own_tokenizer:
        tokenizer = load_tokenizer(own_tokenizer)
        load.check_fit(tokenizer, model.config, own_tokenizer)
        template = load_template(config.model.template, tokenizer)
        model = dataclasses.replace(model, tokenizer=tokenizer, template=template)
    if model.template is None:
        raise ValueError(
            f"model.template='model': {own_tokenizer or init} has no chat template; "
            "give --config.model.template=plain (USER: / GPT:) or a .jinja file"
        )
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
