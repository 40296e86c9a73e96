"""Where each number comes from: of every task the settings and versions that its results share, and what each has of
its own."""

import json
import re
from collections.abc import Sequence
from typing import Any

from imitation_jax.reporting.model_results import Model

PARTS = ("settings", "versions", "data", "fingerprints", "scored_by", "counts")


def tasks(models: Sequence[Model]) -> list[dict]:
    """{"task", "shared": {key: value}, "own": {model: {key: value}}, "subjects": {subject: {model: estimate}}}; keys
    are `settings.shots`, `versions.jax`."""
    origins = []
    for task in dict.fromkeys(task for model in models for task in model.results):
        by_model = {model.name: _flat(model.results[task]) for model in models if task in model.results}
        first = next(iter(by_model.values()))
        shared = {
            key: value
            for key, value in first.items()
            if key not in ("n", "seconds", "tokens")
            and all(key in own and own[key] == value for own in by_model.values())
        }
        own = {
            name: {key: value for key, value in values.items() if key not in shared}
            for name, values in by_model.items()
        }
        subjects: dict[str, dict] = {}
        for model in models:
            for subject, cell in (model.results.get(task, {}).get("subjects") or {}).items():
                subjects.setdefault(subject, {})[model.name] = cell
        origins.append({"task": task, "shared": shared, "own": own, "subjects": subjects})
    return origins


def _flat(result: dict) -> dict[str, Any]:
    flat = {key: result[key] for key in ("n", "seconds", "tokens") if key in result}
    for part in PARTS:
        value = result.get(part)
        if isinstance(value, dict):
            flat |= {f"{part}.{key}": inner for key, inner in value.items()}
        elif value is not None:
            flat[part] = value
    return flat


def shown(value: Any, shareable: bool = False) -> str:
    """A setting's value on one line; to be shared without the folders of its paths."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return without_folders(text) if shareable else text


def without_folders(text: str) -> str:
    """Of each absolute path of this machine its last part, in keys (`data./folder/file`) as well."""
    if re.fullmatch(r"[~/][^\n\",]*", text):  # a path alone, which may hold blanks
        return text.rpartition("/")[2]
    return re.sub(r"(?:(?<![\w/.~])|(?<=[a-z]\.))~?/(?!/)(?:[^/\s\",]+/)*", "", text)
