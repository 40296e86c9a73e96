"""Puts [EMAIL], [PHONE] and [KEY] for addresses, numbers and keys, and counts them under `personal_data`."""

import functools
import re
from collections.abc import Sequence
from types import SimpleNamespace

from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?|\d{1,4}[ .-]?){2,4}\d{2,4}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w-]|\.\d)"
)
KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{36,}"
    r"|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_\w{30,}|xox[abeprs]-[\w-]{10,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])",
    re.DOTALL,
)
# Kind -> what it looks like, and what a text must hold for that to be looked for.
KINDS = {"email": (EMAIL, "@"), "phone": (PHONE, ""), "key": (KEY, "")}


def get_config() -> ConfigDict:
    """What a data config holds under `config.personal_data`."""
    return ConfigDict({"kinds": "email,phone,key"})


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises ValueError where there is no such kind."""
    kinds = comma_list(settings.kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"config.personal_data.kinds: there is no {kind!r}; there are {', '.join(KINDS)}")
    return functools.partial(_apply, kinds=kinds)


def _apply(dialogue: dict, kinds: Sequence[str]) -> dict:
    counts = dict.fromkeys(kinds, 0)
    messages = []
    for message in dialogue["messages"]:
        text = message["content"]
        for kind in kinds:
            pattern, hint = KINDS[kind]
            if hint in text:
                text, count = pattern.subn(f"[{kind.upper()}]", text)
                counts[kind] += count
        messages.append(message | {"content": text})
    counts = {kind: count for kind, count in counts.items() if count}
    return dialogue | {"messages": messages, "personal_data": counts} if counts else dialogue
