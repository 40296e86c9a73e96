"""Config keys declared once with what each changes, and the digests that say whether two runs or results are the same.

A config's keys are declared beside their defaults:

    KEYS = Keys(
        seed=Key(0, "order of the data"),
        mesh=Key("fsdp=-1", "axes of the device mesh", PLACE),
        model=Keys(init=Key("", "hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]", MODEL)),
    )
    config = KEYS.config()

A run is resumed, and a result kept, only if no `MODEL` and no `RESULT` key differs (`SAME`). Two models' numbers are
compared only if no `RESULT` key differs (`COMPARABLE`).
"""

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Effect(enum.Enum):
    """What another value of a key changes."""

    MODEL = "model"  # what is trained or measured: which model, its weights, its template; a comparison is about it
    RESULT = "result"  # how it is trained or measured: the numbers are others, and not comparable
    DATA = "data"  # where the data are read from; a digest of them is among the settings, and decides
    PLACE = "place"  # where and how fast it is computed, up to rounding
    LABEL = "label"  # what it is called


MODEL, RESULT, DATA, PLACE, LABEL = Effect
SAME = frozenset({MODEL, RESULT})
COMPARABLE = frozenset({RESULT})


class Key(NamedTuple):
    """A config key. A key that is added later must default to the old behaviour.

    Attributes:
      default: its value; a dict is a group whose keys are the user's to choose, all with this effect.
      meaning: one line for --help, with units and possible values.
      effect: what another value changes; where in doubt, the result.
      aliases: {earlier value: the present one that means the same}.
    """

    default: Any
    meaning: str
    effect: Effect = RESULT
    aliases: Mapping[str, str] = MappingProxyType({})


class Keys:
    """The keys of a config, in order and nested as the config is."""

    def __init__(self, **entries: "Key | Keys"):
        self._entries = entries

    def __or__(self, more: "Keys") -> "Keys":
        """These keys and `more` of them, which win; groups of one name are joined."""
        entries = dict(self._entries)
        for name, entry in more._entries.items():
            here = entries.get(name)
            entries[name] = here | entry if isinstance(here, Keys) and isinstance(entry, Keys) else entry
        return Keys(**entries)

    def config(self, **values: Any) -> ConfigDict:
        """A config with the defaults, but for top-level `values`.

        Raises:
          KeyError: one of `values` is no key.
        """
        config = ConfigDict()
        for name, entry in self._entries.items():
            config[name] = entry.config() if isinstance(entry, Keys) else _fresh(entry.default)
        if values:
            config.lock()
            config.update(values)
            config.unlock()
        return config

    def items(self, prefix: str = "") -> Iterator[tuple[str, Key]]:
        """(name as the flags write it, declaration) of every key."""
        for name, entry in self._entries.items():
            if isinstance(entry, Keys):
                yield from entry.items(f"{prefix}{name}.")
            else:
                yield prefix + name, entry

    def effect(self, name: str) -> Effect:
        """What the key of that dotted name changes; of one that is not declared, the result."""
        return self._key(name).effect

    def only(self, settings: Mapping[str, Any], effects: Iterable[Effect] = SAME) -> dict[str, Any]:
        """Those settings, flat, whose keys have one of these effects."""
        return {name: value for name, value in self._flat(settings).items() if self.effect(name) in effects}

    def differing(
        self, one: Mapping[str, Any], other: Mapping[str, Any], effects: Iterable[Effect] = SAME
    ) -> dict[str, tuple[Any, Any]]:
        """{key: (value in one, value in other)} of the settings that differ and have one of these effects, by key.

        A setting that one side lacks has its default, None where it has none: it was recorded before the key was.
        """
        left, right = self._flat(one), self._flat(other)
        defaults = {name: key.default for name, key in self.items()}
        values = {
            name: tuple(side.get(name, defaults.get(name)) for side in (left, right))
            for name in sorted(left.keys() | right.keys())
            if self.effect(name) in effects
        }
        return {name: pair for name, pair in values.items() if pair[0] != pair[1]}

    def fingerprint(self, settings: Mapping[str, Any]) -> str:
        """Digest of all settings that a kept result must share, see `SAME`."""
        return digest(self.only(settings))

    def _key(self, name: str) -> Key:
        first, _, rest = name.partition(".")
        entry = self._entries.get(first, Key(None, "not declared"))
        return entry._key(rest) if isinstance(entry, Keys) else entry

    def _flat(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Flat, with the present value for each that is an alias."""
        return {
            name: self._key(name).aliases.get(value, value) if isinstance(value, str) else value
            for name, value in flat(settings)
        }


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key as the flags write it, value) of all settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def digest(value: Any) -> str:
    """16 hexadecimal digits of anything that JSON can write; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fresh(default: Any) -> Any:
    return ConfigDict(default) if isinstance(default, Mapping) else default
