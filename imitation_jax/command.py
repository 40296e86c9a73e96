"""How every command starts and fails: flags, --help, plain log lines, one line for an error."""

import logging as std_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

PREEMPTED = 75  # EX_TEMPFAIL: checkpointed after SIGTERM, start me again

DEBUG = flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")
_own_flags = ["debug"]


def define_config(example: str) -> flags.FlagHolder:
    """The --config flag; `example` is a file to name in --help."""
    _own_flags.insert(0, "config")
    return config_flags.DEFINE_config_file(
        "config", None, f"Config file, as {example}; FILE.py:VARIANT for a variant, --config.KEY=VALUE for its keys."
    )


def define_string(name: str, default: str | None, text: str, required: bool = False) -> flags.FlagHolder:
    """A string flag that --help lists."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_string(name, default, text, required=required)


def define_boolean(name: str, default: bool, text: str) -> flags.FlagHolder:
    """A yes/no flag that --help lists."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_boolean(name, default, text)


def cache_dir() -> Path:
    """Where compiled programs and tokenised data are kept: $IMITATION_CACHE, else ~/.cache/imitation_jax."""
    return Path(os.environ.get("IMITATION_CACHE", "~/.cache/imitation_jax")).expanduser()


def run(main: Callable[[], int | None]) -> None:
    """Runs `main` as a command: exits with what it returns, and turns any exception into one line and exit 1."""

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-h", "-help", "--helpfull"} & set(argv):
            print(_help())
            sys.exit(0)
        try:
            rest = flags.FLAGS(argv)[1:]
            if "config" in flags.FLAGS and flags.FLAGS.config is None:
                raise ValueError("--config is required; --help tells more")
            if rest:
                raise ValueError(f"unexpected argument {rest[0]!r}; flags are written --name=value, --help lists them")
        except Exception as error:
            _fail(error, "--debug" in argv)
        return argv

    def guarded(argv: list[str]) -> None:
        del argv
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            _fail(error, DEBUG.value)

    app.run(guarded, flags_parser=parse)


def _fail(error: Exception, debug: bool) -> None:
    if debug:
        raise error
    # KeyError prints its message quoted, and libraries write novels; the rest is for --debug.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    if not isinstance(error, (ValueError, OSError, flags.Error)):
        text = f"{type(error).__name__}: {text[:500]} (--debug shows where)"
    print(f"error: {text}", file=sys.stderr)
    sys.stderr.flush()
    # Threads of a library that still hold work would keep a failed command alive.
    os._exit(1)


def _help() -> str:
    module = sys.modules["__main__"]
    lines = [(module.__doc__ or "").strip(), "", "Flags:"]
    for name in _own_flags:
        flag = flags.FLAGS[name]
        default = "" if flag.default in (None, "", False) else f" (default {flag.default})"
        lines.append(f"  --{name}{'' if flag.boolean else '=...'}  {flag.help}{default}")
    return "\n".join(lines)
