"""`plan --all`: every size config on the slice that it names, one process after the other, going on after a kill."""

import multiprocessing
import runpy
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core.progress import progress
from imitation_jax.parallel import topology
from imitation_jax.parallel.precision import configure_jax
from imitation_jax.planning.plan import plan
from imitation_jax.planning.target import make_target


def size_configs(folder: Path) -> dict[str, ConfigDict]:
    """The configs of a folder that name a slice, by file name, the cheapest to compile first.

    Raises:
      FileNotFoundError: there is none.
    """
    configs = {}
    for path in sorted(folder.glob("*.py")):
        config = runpy.run_path(str(path))["get_config"]()
        if "plan" in config and config.plan.topology:
            configs[path.stem] = config
    if not configs:
        raise FileNotFoundError(f"{folder}/*.py: no config names a slice in plan.topology; start in the repository")
    return configs


def plan_all(configs: dict[str, ConfigDict], cache_dir: Path, **options: Any) -> list[dict[str, Any]]:
    """The plans of all configs; what failed is {"config", "topology", "fits": False, "error"}.

    Args:
      options: of `plan`.
    """
    return list(_plans(configs, cache_dir, options))


def _plans(configs: dict[str, ConfigDict], cache_dir: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # A process each: what the compiler keeps of one program it need not keep, and its crash ends one plan only.
    context = multiprocessing.get_context("spawn")
    for number, (name, config) in enumerate(progress(list(configs.items()), desc="planning", lines=False), 1):
        logging.info("%d of %d: %s on %s", number, len(configs), name, config.plan.topology)
        with ProcessPoolExecutor(1, context) as pool:
            try:
                yield pool.submit(_one, config.to_dict(), cache_dir, options).result() | {"config": name}
            except (ValueError, RuntimeError, OSError, BrokenProcessPool) as error:
                reason = " ".join(str(error).split())
                logging.warning("%s: %s", name, reason)
                yield {"config": name, "topology": config.plan.topology, "fits": False, "error": reason}


def _one(config: dict[str, Any], cache_dir: Path, options: dict[str, Any]) -> dict[str, Any]:
    logging.set_verbosity(logging.INFO)
    topology.plan_only()
    target = make_target(ConfigDict(config))
    configure_jax(cache_dir)
    return plan(target, cache_dir, **options)
