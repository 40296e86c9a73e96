"""Hugging Face folders in and out: safetensors and config.json; one mapping table, read in both directions."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imitation_jax.core.files import replacing, write_text
from imitation_jax.parallel.sharding import path_of

# (our path, Hugging Face's name with {} for the layer, how many leading dimensions of ours are inputs): n where theirs
# is a matrix (outputs, inputs), -n where it is one of (inputs, outputs), 0 where it is as ours.
Mapping = Iterable[tuple[str, str, int]]
Tensors = dict[str, Callable[[], np.ndarray]]
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
      FileNotFoundError, ValueError: no such file, or no JSON in it.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; hf: takes a folder with config.json and *.safetensors")
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); fetch it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(value).__name__}")
    return value


def open_tensors(folder: Path) -> Tensors:
    """Readers of all tensors of a folder by name, sharded index or not; nothing is read until one is called.

    Raises:
      FileNotFoundError: no weights, or a shard that the index names is missing.
      ValueError: a file that is cut off or no safetensors file, or an index that names none.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not weight_map:
            raise ValueError(f"{index}: names no files (weight_map); fetch it again")
        files = sorted(set(weight_map.values()))
    elif not (files := sorted(path.name for path in folder.glob("*.safetensors"))):
        raise FileNotFoundError(f"{folder}: no *.safetensors files; convert other formats with transformers first")
    tensors = {}
    for file in files:
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{path}: named by {index.name} but missing; fetch the checkpoint again")
        try:
            shard = safe_open(path, framework="numpy")
        except SafetensorError as error:
            raise ValueError(f"{path}: cannot be read as safetensors ({error}); fetch it again") from None
        for name in shard.keys():
            tensors[name] = lambda shard=shard, name=name: shard.get_tensor(name)
    return tensors


def load_params(mapping: Mapping, abstract: Any, tensors: Tensors, where: str) -> Any:
    """Parameters in their shards.

    Every host reads each tensor once, and holds one parameter at a time (all its layers) beside its devices' shards.

    Args:
      mapping: a family's table.
      abstract: the family's parameter tree of ShapeDtypeStructs, each with its sharding and dtype.
      tensors: readers by Hugging Face name.
      where: what to name in errors.

    Raises:
      ValueError: missing or left-over tensors, or a shape that does not fit.
    """
    rows = {path: (name, inputs) for path, name, inputs in mapping}
    prefix = next(name.split(".")[0] for name, _ in rows.values()) + "."
    if not any(name.startswith(prefix) for name in tensors):  # saved without its head, as OpenAI's GPT-2 is
        tensors = {prefix + name: read for name, read in tensors.items()}
    layers = {path_of(k): leaf.shape[0] for k, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    wanted = {
        rows[path][0].format(layer)
        for path, count in layers.items()
        for layer in (range(count) if "{}" in rows[path][0] else [0])
    }
    missing = sorted(wanted - tensors.keys())
    if missing:
        raise ValueError(f"{where}: {len(missing)} tensors are missing, {missing[0]} the first; is the file whole?")
    # Old exports also carry the rotary table and the causal mask, which are computed here, and the tied head, which is
    # the embedding.
    known = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "lm_head.weight")
    extra = sorted(name for name in tensors.keys() - wanted if not name.endswith(known))
    if extra:
        raise ValueError(f"{where}: {len(extra)} tensors do not belong to this architecture, {extra[0]} the first")

    def load(key_path, leaf):
        name, inputs = rows[path_of(key_path)]
        stacked = "{}" in name
        shape = leaf.shape[1:] if stacked else leaf.shape
        flat = _flat(shape, inputs)
        theirs = flat[::-1] if inputs > 0 else flat

        def read(name):
            array = tensors[name]()
            if array.shape != theirs:
                raise ValueError(f"{where}: {name} has shape {array.shape} where the config asks for {theirs}")
            return (array.T if inputs > 0 else array).reshape(shape)

        whole = np.empty(leaf.shape, leaf.dtype)
        if stacked:
            for layer in range(leaf.shape[0]):
                whole[layer] = read(name.format(layer))
        else:
            whole[...] = read(name)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: whole[index])

    return jax.tree_util.tree_map_with_path(load, abstract)


def _flat(shape: tuple[int, ...], inputs: int) -> tuple[int, ...]:
    """Our shape of one layer's tensor as a matrix (inputs, outputs), where it is one."""
    return (math.prod(shape[: abs(inputs)]), math.prod(shape[abs(inputs) :])) if inputs else shape


def save_params(mapping: Mapping, params: Any, folder: Path, config: dict[str, Any]) -> None:
    """Writes `config.json` and float32 (or bfloat16) safetensors that transformers loads, in files of 5 GB.

    A host holds one of these files beside the parameters, and safetensors its own copy of it. `config.json` goes first
    and comes last, so that a kill leaves no folder that loads.

    Args:
      mapping: the family's table.
      params: the family's parameter tree, addressable from this process.
      folder: made where it does not exist.
      config: the contents of `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    leaves = {path_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(params)}
    shards: list[dict[str, tuple[jax.Array, int | None, int]]] = [{}]  # by name: our parameter, layer, inputs
    room = SHARD_BYTES
    for path, name, inputs in mapping:
        if path not in leaves:
            continue
        leaf = leaves[path]
        layers = range(leaf.shape[0]) if "{}" in name else [None]
        for layer in layers:
            size = leaf.nbytes // len(layers)
            if size > room and shards[-1]:
                shards.append({})
                room = SHARD_BYTES
            shards[-1][name.format(layer)] = (leaf, layer, inputs)
            room -= size
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _tensor(*part) for name, part in shard.items()}
        with replacing(folder / file) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    # What an earlier export left would be read instead of, or beside, what was written now.
    for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
        if old.name not in weight_map.values():
            old.unlink(missing_ok=True)
    if len(shards) > 1:
        total = sum(leaf.nbytes for leaf in leaves.values())
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    dtype = "bfloat16" if leaves["embed"].dtype == ml_dtypes.bfloat16 else "float32"
    _write_json(folder / "config.json", {**config, "torch_dtype": dtype})


def _tensor(leaf: jax.Array, layer: int | None, inputs: int) -> np.ndarray:
    # An array keeps the copy that is made of it on the host: of one layer's, nothing stays behind.
    tensor = np.asarray(leaf if layer is None else jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False))
    tensor = tensor.reshape(_flat(tensor.shape, inputs))
    return np.ascontiguousarray(tensor.T if inputs > 0 else tensor)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1))
