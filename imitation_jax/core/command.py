"""How every command starts and fails: flags, --help, plain log lines, one line for an error."""

import logging as std_logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from imitation_jax.core.buckets import check_reachable

PREEMPTED = 75  # exit code, EX_TEMPFAIL: stopped in order by SIGTERM, start me again

DEBUG = flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")
# What a failed conversion of a --config.KEY says -> what it should say.
CONVERSIONS = {"int()": "not a whole number", "to float": "not a number", "Non-boolean": "neither true nor false"}
_own_flags = ["debug"]
_instead_of_config: list[str] = []
# What is called when a command ends, with its exit code, what is said of it, and the error that ended it, if any.
EndHook = Callable[[int, str, BaseException | None], None]
_end_hooks: list[EndHook] = []


def define_config(example: str, unless: str = "") -> flags.FlagHolder:
    """The --config flag; `example` is a file to name in --help, `unless` a switch that does without it."""
    _own_flags.insert(0, "config")
    _instead_of_config.extend([unless] if unless else [])
    return config_flags.DEFINE_config_file(
        "config", None, f"Config file, as {example}; FILE.py:VARIANT for a variant, --config.KEY=VALUE for its keys."
    )


def define_string(name: str, default: str | None, text: str, required: bool = False) -> flags.FlagHolder:
    """A string flag that --help lists."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_string(name, default, text, required=required)


def define_boolean(name: str, text: str) -> flags.FlagHolder:
    """A switch that --help lists; off unless given."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_boolean(name, False, text)


def define_integer(name: str, default: int | None, text: str) -> flags.FlagHolder:
    """The same for a whole number."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_integer(name, default, text)


def define_float(name: str, default: float, text: str) -> flags.FlagHolder:
    """The same for a number."""
    _own_flags.insert(-1, name)
    return flags.DEFINE_float(name, default, text)


def at_end(hook: EndHook) -> None:
    """Has `hook` called when `run` ends the command: after its work, or before an error is printed."""
    _end_hooks.append(hook)


def run(main: Callable[[], int | None]) -> None:
    """Runs `main` as a command: exits with what it returns, and turns any exception into one line and exit 1."""

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-h", "-help", "--helpfull"} & set(argv):
            print(_help())
            sys.exit(0)
        try:
            for given in argv:
                if path := re.match(r"--?config=(.*?)(:[^/:]*)?$", given):
                    if not Path(path[1]).is_file():
                        raise FileNotFoundError(f"{given}: no such file")
            rest = flags.FLAGS(argv)[1:]
            without = any(flags.FLAGS[name].value for name in _instead_of_config)
            if "config" in flags.FLAGS and flags.FLAGS.config is None and not without:
                raise ValueError("--config is required; --help tells more")
            if rest:
                raise ValueError(f"unexpected argument {rest[0]!r}; flags are written --name=value, --help lists them")
        except Exception as error:
            _fail(_explained(error, argv) if not isinstance(error, ValueError | OSError) else error, "--debug" in argv)
        return argv

    def guarded(argv: list[str]) -> None:
        del argv
        logging.set_verbosity(logging.INFO)
        std_logging.getLogger("jax").setLevel(std_logging.WARNING)  # it tells of every backend that is not there
        logging.get_absl_handler().setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        if not DEBUG.value:
            sys.unraisablehook = _of_main_thread
        try:
            check_reachable(_given_texts())
            code = main() or 0
            _end(code, "", None)
            sys.exit(code)
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr, flush=True)
            _end(130, "was interrupted", error)
            sys.exit(130)
        except Exception as error:
            _fail(error, DEBUG.value)

    app.run(guarded, flags_parser=parse)


def _explained(error: Exception, argv: list[str]) -> Exception:
    """What absl or ml_collections says about a flag, in one line that names the argument and what it should be."""
    text = str(error.args[0]) if error.args else ""
    if match := re.search(r"Flag --(\w+) must have a value other than None", text):
        explained = f"--{match[1]} is required; --help tells more"
    elif match := re.match(r"flag (--config=\S+): Error whilst parsing config file:", text):
        explained = f"{match[1]}: {text.splitlines()[-1]}"
    elif match := re.match(r"flag (--config\.\S+): (.*)", text, re.DOTALL):
        wanted = (wanted for sign, wanted in CONVERSIONS.items() if sign in match[2])
        explained = f"{match[1]}: {next(wanted, match[2])}"
    elif isinstance(error, flags.Error):
        return error
    else:
        key = re.match(r"\W*(\w+)", text) if isinstance(error, AttributeError | KeyError) else None
        given = [arg for arg in argv if key and re.match(rf"--?config\.(\w+\.)*{key[1]}(\.|=|$)", arg)]
        if given:
            close = re.search(r'Did you mean "(\w+)"', text)
            hint = f"; did you mean {close[1]}?" if close else ""
            explained = f"{given[0]}: the config has no key {key[1]!r}{hint}"
        else:
            flag = next((arg for arg in argv if arg.startswith(("--config", "-config"))), "--config")
            explained = f"{flag}: cannot be read ({type(error).__name__}: {error}); --debug shows where"
    return ValueError(explained).with_traceback(error.__traceback__)


def _given_texts() -> list[str]:
    """The values of all flags and config keys that are strings."""
    config = flags.FLAGS.config if "config" in flags.FLAGS else None
    named = [flags.FLAGS[name].value for name in _own_flags if name != "config"]
    named += _strings(config.to_dict()) if config else []
    return [text for text in named if isinstance(text, str)]


def _strings(tree: dict) -> list[str]:
    values = [value for value in tree.values() if isinstance(value, str)]
    return values + [text for value in tree.values() if isinstance(value, dict) for text in _strings(value)]


def _of_main_thread(unraisable: Any) -> None:
    # When a write fails, TensorStore's threads print a traceback for each other one that was under way.
    if threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(unraisable)


def _end(code: int, line: str, error: BaseException | None) -> None:
    for hook in _end_hooks:
        hook(code, line, error)


def _fail(error: Exception, debug: bool) -> None:
    # KeyError prints its message quoted, and libraries write novels; the rest is for --debug.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    if not isinstance(error, ValueError | OSError | FloatingPointError | flags.Error):
        text = f"{type(error).__name__}: {text[:500]} (--debug shows where)"
    code = getattr(error, "exit_code", 1)
    _end(code, f"failed: {text}", error)
    if debug:
        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr, flush=True)
    # Threads of a library that still hold work would keep a failed command alive.
    os._exit(code)


def _help() -> str:
    module = sys.modules["__main__"]
    lines = [(module.__doc__ or "").strip(), "", "Flags:"]
    for name in _own_flags:
        flag = flags.FLAGS[name]
        default = "" if flag.default in (None, "", False) else f" (default {flag.default})"
        lines.append(f"  --{name}{'' if flag.boolean else '=...'}  {flag.help}{default}")
    return "\n".join(lines)
