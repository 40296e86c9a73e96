"""Model families, a module each, called by the `model_type` of its Hugging Face `config.json`.

To add one: MODEL_TYPE.py in this folder, as llama.py is, with a frozen config dataclass whose `build(rngs)` makes an
nnx module out of the parts in decoder.py; `config_from_hf`, `config_to_hf`; and the tables SHARDING, HUGGINGFACE and
PRESETS. The config has LLaMA's names for sizes, `matrix_weights` and `learned_positions`; the paths of parameters that
are no matrices end in "norm" or "bias". Only gguf.py names families, for the files of llama.cpp.
tests/models/test_families.py adds one, test_llama.py tests tables.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any


def names() -> list[str]:
    """The model types that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(model_type: str | None) -> ModuleType:
    """The family of a model type.

    Raises:
      ValueError: there is none.
    """
    if model_type not in names():
        raise ValueError(f"model type {model_type!r} is none of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{model_type}")


def name_of(family: ModuleType) -> str:
    """Its model type."""
    return family.__name__.rpartition(".")[2]


def preset(name: str) -> tuple[ModuleType, Any]:
    """The family and the config of an architecture that a family's `PRESETS` name.

    Raises:
      ValueError: there is none.
    """
    presets = {key: (family, config) for family in map(find, names()) for key, config in family.PRESETS.items()}
    if name not in presets:
        raise ValueError(f"model.preset={name!r} is none of {', '.join(presets)}")
    return presets[name]
