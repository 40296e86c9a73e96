"""Launchers: where a study's bases and cells are computed, if not here. One module each; `--launcher=NAME` names it.

To add one, write launchers/NAME.py with these three, and no other file:
1. KEYS, a `core.fingerprint.Keys`: what `config.NAME` of a study holds, as flags of the machine that is asked for.
2. check(layout): raises ValueError, one line, where that machine would not find what the study needs.
3. run(session, jobs): hands over the commands of the jobs that are not done, and waits until they are; a job that
   fails is `session.fail`ed, and the others go on; what was handed over before a kill is found again.
"""

import importlib
import os
import pkgutil
from types import ModuleType

HERE = "here"  # no launcher: this machine
POLL_SECONDS = float(os.environ.get("IMITATION_POLL", "30"))  # between two looks, as in launch/tpu.sh


def names() -> list[str]:
    """What --launcher may be besides `HERE`."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The launcher of that name.

    Raises:
      ValueError: there is none.
    """
    if name not in names():
        raise ValueError(f"--launcher={name} is none of {', '.join([HERE, *names()])}")
    return importlib.import_module(f"{__name__}.{name}")
