"""The training config: every key with its default, its meaning, and what another value of it changes.

A size's file (configs/*.py) calls `get_config` or `student` and sets what differs.
"""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from imitation_jax.core.files import write_text
from imitation_jax.core.fingerprint import LABEL, MODEL, PLACE, Key, Keys, flat
from imitation_jax.data.input import mixture
from imitation_jax.data.input.mixture import Source
from imitation_jax.models.decoder import REMAT_POLICIES
from imitation_jax.models.kernels import KERNELS
from imitation_jax.parallel.precision import compute_dtype
from imitation_jax.tokenizers.chat_template import ALIASES
from imitation_jax.training.optimizer import make_optimizer, make_schedule

KEYS = Keys(
    seed=Key(0, "weights of a random start, packing and order of the data, sampling"),
    mesh=Key("fsdp=-1", "axes data, fsdp, sequence, tensor; -1 takes the rest", PLACE),
    dtype=Key(
        "auto",
        "of the computation: float32 or bfloat16; auto: bfloat16 on TPU and GPU, float32 on CPU; weights are float32",
    ),
    remat=Key(
        "full",
        "what the backward pass recomputes: full, offload (full, with what it starts from in the host's memory), dots "
        "(all but matrix products) or none",
        PLACE,
    ),
    attention=Key("auto", "splash (TPU; else interpreted), triton (GPU), cpu or xla; auto: as the platform has", PLACE),
    loss_chunk=Key(256, "positions of each row whose logits exist at a time", PLACE),
    model=Keys(
        init=Key("", "hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]; where empty, random weights", MODEL),
        preset=Key("", "architecture of a random start; with init, only checked against it", MODEL),
        tokenizer=Key("", "folder or file; where empty the one that comes with init", MODEL),
        template=Key("model", "chat template: model (its own), plain (USER:/GPT:) or a .jinja file", MODEL, ALIASES),
    ),
    data=Keys(
        path=Key("", 'dialogues .jsonl, or a folder that `prepare` made; rows {"text"} are plain text, all loss'),
        token_budget=Key(0, "tokens of path to keep, chosen by seed, more hold all that fewer do; 0 is all"),
        mixture=Key({}, "instead of path: name -> source(...) for each of several datasets"),
        validation=Key("", "the same, for the validation loss; where empty there is none"),
        seq_len=Key(2048, "positions a row"),
        packing=Key(True, "several dialogues a row, attention and positions apart"),
        workers=Key(0, "processes that read ahead; 0 uses threads", PLACE),
        cache_dir=Key("", "of tokenised dialogues; where empty $IMITATION_CACHE/tokens", PLACE),
    ),
    batch_size=Key(32, "rows of the global batch"),
    accumulation=Key(1, "microbatches a step; the same loss whatever it is", PLACE),
    epochs=Key(1, "how often every dialogue is seen"),
    steps=Key(0, "optimiser steps after which training ends; 0 is the end of the epochs"),
    optimizer=Keys(
        name=Key("adamw", "adamw, or weight_magnitude, the paper's"),
        learning_rate=Key(2e-5, "the highest of the schedule"),
        schedule=Key("cosine", "after the warm-up: constant, cosine or linear"),
        warmup_steps=Key(0, "steps up to the highest learning rate"),
        warmup_fraction=Key(0.03, "of the run's steps, where warmup_steps is 0"),
        final_fraction=Key(0.1, "of the highest learning rate, at the end of cosine and linear"),
        b1=Key(0.9, "decay of the first moments"),
        b2=Key(0.95, "adamw: decay of the second moments"),
        eps=Key(1e-8, "adamw: added to the root of the second moments"),
        decay_exponent=Key(0.95, "weight_magnitude: second moments decay with 1 - t^-exponent"),
        min_rms=Key(1e-3, "weight_magnitude: floor of a weight tensor's RMS"),
        weight_decay=Key(0.0, "share of a weight that a step takes away, times the learning rate"),
        clip_norm=Key(1.0, "the most that the global norm of a gradient may be"),
        state_dtype=Key("float32", "of the moments; bfloat16 halves their memory, rounded at random"),
    ),
    checkpoint=Keys(
        every=Key(500, "steps between checkpoints; the last step is always saved", PLACE),
        keep=Key(2, "how many of the newest stay; with validation, the best one too", PLACE),
    ),
    evaluate=Keys(
        every=Key(500, "steps between validation losses and samples; 0 for none", PLACE),
        samples=Key(4, "dialogues of which the first user turn is answered; 0 for none", PLACE),
        max_new_tokens=Key(64, "of such an answer", PLACE),
    ),
    plan=Keys(topology=Key("", "the TPU slice that the config is made for, as v5e:8x8", LABEL)),
    log_every=Key(10, "steps between log lines; every step is in metrics.jsonl", LABEL),
    max_skipped=Key(5, "steps in a row without a finite gradient before the run stops"),
)


def get_config() -> ConfigDict:
    """Defaults: the recommended setting for supervised fine-tuning."""
    return KEYS.config()


def source(path: str = "", epochs: int = 1, share: float = 0.0, token_budget: int = 0) -> ConfigDict:
    """One dataset of a mixture, for `config.data.mixture.NAME`.

    Without a share each of its dialogues is seen `epochs` times in each of the run's epochs. With one it makes up that
    share of all tokens, few or many as it has: `source("chat.jsonl")` beside `source("web.jsonl", share=0.1)` is every
    dialogue once and 10% web text, the next epoch going on in the web text where the first one stopped. At least one
    dataset has no share: it decides how long the run is. `token_budget` first keeps so many of the dataset's tokens,
    as `config.data.token_budget` does. What exactly holds: `data/input/mixture.py`.
    """
    return ConfigDict({"path": path, "epochs": epochs, "share": share, "token_budget": token_budget})


def sources(config: ConfigDict) -> dict[str, Source]:
    """The datasets that are trained on, as `Stream` takes them, by the place of their keys in the config.

    Raises:
      ValueError: neither path nor mixture or both, or a mixture that cannot be made; names the key.
    """
    named = {f"data.mixture.{name}": keys for name, keys in config.data.mixture.to_dict().items()}
    if not named:
        named = {"data": {"path": config.data.path, "token_budget": config.data.token_budget}}
    elif config.data.path:
        raise ValueError(f"data.path={config.data.path} and data.mixture are both given; choose one")
    elif config.data.token_budget:
        raise ValueError("data.token_budget is for data.path; give each dataset of data.mixture its own")
    kinds = {"path": (str, "text"), "epochs": (int, "a whole number"), "share": ((int, float), "a number")}
    kinds["token_budget"] = kinds["epochs"]
    for name, keys in named.items():
        if not isinstance(keys, dict):
            raise ValueError(f"{name}={keys!r} is no dataset; write {name} = source(path)")
        if unknown := keys.keys() - kinds.keys():
            raise ValueError(f"{name} has no key {min(unknown)!r}, only {', '.join(sorted(kinds))}")
        for key, value in keys.items():
            if not isinstance(value, kinds[key][0]):
                raise ValueError(f"{name}.{key}={value!r} must be {kinds[key][1]}")
        if "path" not in keys:
            raise ValueError(f"{name} has no path; write {name} = source(path)")
    datasets = {name: Source(**keys) for name, keys in named.items()}
    mixture.check(datasets)
    return datasets


def student(preset: str, variant: str, learning_rate: float = 2e-5, template: str = "plain") -> ConfigDict:
    """The config of one size; its file is called as its preset.

    It is the paper's training (chat format, 32 rows of 2,048 positions, loss on the answers, one epoch) but for the
    optimiser: AdamW at the usual learning rate for the size, warm-up in proportion to the run, cosine. The variant
    "paper" is the letter of the paper; both are the same where `paper` and this function do not differ.

    What the files say of memory and time is what `plan --all` printed; the README has its table.

    Raises:
      ValueError: another variant.
    """
    config = get_config()
    config.model.preset = preset
    config.model.template = template
    config.optimizer.learning_rate = learning_rate
    if variant == "paper":
        paper(config)
    elif variant:
        raise ValueError(f"{preset}.py has no variant {variant!r}; there is paper")
    return config


def paper(config: ConfigDict) -> ConfigDict:
    """Sets the training of "The False Promise of Imitating Proprietary LLMs" (arXiv 2305.15717, section 3)."""
    config.model.template = "plain"
    config.data.seq_len = 2048
    config.batch_size = 32
    config.epochs = 1
    config.optimizer.name = "weight_magnitude"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 1000
    return config


def check(config: ConfigDict, mesh: Mesh) -> None:
    """Refuses what cannot be trained, before anything is read.

    Raises:
      ValueError: naming the key, its value and what would fit.
    """
    sources(config)
    check_step(config, mesh)


def check_step(config: ConfigDict, mesh: Mesh) -> None:
    """`check` without the data, which a plan does without."""
    at_least_1 = ("batch_size", "accumulation", "epochs", "loss_chunk", "log_every", "max_skipped")
    at_least_1 += ("data.seq_len", "checkpoint.every", "checkpoint.keep")
    at_least_0 = ("seed", "steps", "data.workers", "optimizer.warmup_steps", "optimizer.warmup_fraction")
    at_least_0 += ("evaluate.every", "evaluate.samples", "optimizer.weight_decay")
    at_least_1 += ("evaluate.max_new_tokens",)
    values = dict(flat(config.to_dict()))
    for key in at_least_1 + at_least_0:
        if values[key] < (least := 1 if key in at_least_1 else 0):
            raise ValueError(f"{key}={values[key]} must be {least} or more")
    for key in ("learning_rate", "clip_norm", "eps", "min_rms"):
        if config.optimizer[key] <= 0:
            raise ValueError(f"optimizer.{key}={config.optimizer[key]} must be more than 0")
    for key in ("b1", "b2", "warmup_fraction", "final_fraction"):
        if not 0 <= config.optimizer[key] <= 1:
            raise ValueError(f"optimizer.{key}={config.optimizer[key]} must lie between 0 and 1")
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch_size % (config.accumulation * rows):
        raise ValueError(
            f"batch_size={config.batch_size} is not a multiple of accumulation={config.accumulation} x {rows} "
            f"(mesh data x fsdp); choose a multiple of {config.accumulation * rows}"
        )
    ways = mesh.shape["sequence"]
    if config.data.seq_len % ways:
        raise ValueError(f"data.seq_len={config.data.seq_len} is not a multiple of {ways} (mesh sequence)")
    if config.remat not in REMAT_POLICIES:
        raise ValueError(f"remat={config.remat!r} is none of {', '.join(REMAT_POLICIES)}")
    if config.attention not in KERNELS:
        raise ValueError(f"attention={config.attention!r} is none of {', '.join(KERNELS)}")
    compute_dtype(config.dtype)
    make_optimizer(config.optimizer, make_schedule(config.optimizer, 1))


def compare(folder: epath.Path, config: ConfigDict) -> None:
    """Compares with the `config.json` of the run that the folder holds, if any.

    Raises:
      ValueError: the folder belongs to a run with another config; names the keys that differ.
      OSError: it is no folder.
    """
    path = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--workdir={folder}: is a file; name a folder")
    if not path.exists():
        return
    recorded = json.loads(path.read_text())
    differing = KEYS.differing(_resolved(recorded), _resolved(config.to_dict()))
    if differing:
        listed = ", ".join(f"{key} ({before!r} there, {now!r} now)" for key, (before, now) in differing.items())
        raise ValueError(f"{path}: belongs to a run with another config: {listed}; use a new --workdir")


def trained_with(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a run was trained with these settings, as far as its weights depend on them.

    Args:
      recorded: the run's `config.json`.
      settings: some of the training config's, by their dotted names. What "auto" becomes is the machine's to say, so it
        agrees with whatever is recorded.
    """
    asked = {key: value for key, value in settings.items() if value != "auto"}
    known = {key: value for key, value in flat(recorded) if key in asked}
    return not KEYS.differing(known, asked)


def claim(folder: epath.Path, config: ConfigDict) -> None:
    """Writes `config.json` unless it is there: from here on the folder belongs to this run."""
    if (folder / "config.json").exists():
        return
    write_text(folder / "config.json", json.dumps(_resolved(config.to_dict()), indent=1) + "\n")


def _resolved(settings: dict[str, Any]) -> dict[str, Any]:
    """With what "auto" becomes on this platform, where another value changes the numbers."""
    return settings | {"dtype": str(compute_dtype(settings.get("dtype", "auto")))}
