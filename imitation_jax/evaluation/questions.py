"""The tasks that a config asks for: chosen, checked and read before a model is loaded."""

import dataclasses
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.fingerprint import Keys, digest
from imitation_jax.data.benchmark_rows import recording
from imitation_jax.evaluation.config import settings_keys
from imitation_jax.evaluation.task import Item, Needs, Task
from imitation_jax.evaluation.tasks import all_tasks
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import NAMED_TEMPLATES

ROLES = ("", "base", "student", "teacher")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Questions:
    """What a task asks in this start, of every model.

    Attributes:
      key: what results are filed as: the task's name, or its key in a batch.
      config: the task's own.
      where: the config's place, for messages.
      items: none before they are read.
      files: checksums of the files that they were read from.
    """

    key: str
    config: ConfigDict
    where: str = "config"
    items: list[Item] = dataclasses.field(default_factory=list)
    files: dict[str, dict] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The module."""
        return all_tasks()[self.config.task]

    @property
    def keys(self) -> Keys:
        """What each of a result's settings changes."""
        return settings_keys(self.task)

    @property
    def of_answers(self) -> bool:
        """Whether it asks no model, but looks at answers."""
        return self.task.NEEDS is Needs.ANSWERS

    @property
    def needs_template(self) -> bool:
        """Whether the model must have a chat template of its own."""
        chat = self.task.NEEDS is Needs.CHAT_MODEL or self.config.get("chat", False)
        return chat and self.config.template == "model"

    def read(self, **changes: Any) -> "Questions":
        """With its items, and those config keys changed.

        Raises:
          ValueError, OSError: one line with the place or the key.
        """
        config = self.config.copy_and_resolve_references()
        config.update(changes)
        try:
            with recording() as files:
                items = self.task.read(config)
        except (ValueError, OSError) as error:
            raise self.error(error) from error
        return dataclasses.replace(self, config=config, items=items, files=files)

    def error(self, error: Exception) -> Exception:
        """Of a batch: whose error it is, with the keys as they are called there, and how to do without the task."""
        empty = [key for key, value in self.config.items() if value == "" and key not in ("name", "role")]
        hint = ", ".join(f"{self.where}.{key}" for key in empty) if "(no path given)" in str(error) else ""
        hint = f" (empty: {hint})" if hint else ""
        if self.where == "config":
            return FileNotFoundError(f"{error}{hint}") if hint else error
        text = re.sub(rf"\bconfig\.({'|'.join(self.config)})\b", rf"{self.where}.\1", str(error))
        return ValueError(f"{self.where}: {text}{hint}; or leave {self.key} out by config.only")

    def settings(self, **recorded: Any) -> dict[str, Any]:
        """A result's settings, as they are read back from its file: the config and all else that a number depends on.

        Args:
          recorded: of the model, see `config.RECORDED`.
        """
        settings = self.config.to_dict() | recorded
        settings |= {"definitions": self.task.DEFINITIONS, "data_digest": digest(self.items)}
        if settings.get("template", "model") not in NAMED_TEMPLATES:
            settings["template_digest"] = digest(Path(self.config.template).read_text(encoding="utf-8"))
        return json.loads(json.dumps(settings))


def choose(config: ConfigDict) -> list[Questions]:
    """The task of a config, or those of a batch that `config.only` names, in the order of `config.tasks`.

    Raises:
      ValueError, FileNotFoundError: a key out of range, found without reading any data.
    """
    if "tasks" not in config:
        chosen = [Questions(config.task, config)]
    else:
        patterns = comma_list(config.only) or ["*"]
        for pattern in patterns:
            if not any(fnmatchcase(key, pattern) for key in config.tasks):
                raise ValueError(f"config.only: no task matches {pattern!r}; there are {', '.join(config.tasks)}")
        chosen = [
            Questions(key, task, f"config.tasks.{key}")
            for key, task in config.tasks.items()
            if any(fnmatchcase(key, pattern) for pattern in patterns)
        ]
    for questions in chosen:
        _check(questions)
    return chosen


def _check(questions: Questions) -> None:
    config, where = questions.config, questions.where
    if config.task not in all_tasks():
        raise ValueError(f"{where}.task={config.task!r}: expected one of {', '.join(all_tasks())}")
    ranges = [
        ("role", config.role in ROLES, f"expected {', '.join(ROLES[1:])}, or nothing"),
        ("limit", config.limit >= 0, "must be 0 (all) or more"),
    ]
    if not questions.of_answers:
        make_mesh(config.mesh)
        ranges += [
            ("batch_size", config.batch_size >= 1, "must be 1 or more"),
            ("memory_gib", config.memory_gib >= 0, "must be 0 (chosen by itself) or more"),
            ("compute_dtype", config.compute_dtype in DTYPES, f"expected {' or '.join(DTYPES)}"),
        ]
        if config.template not in NAMED_TEMPLATES and not Path(config.template).is_file():
            raise FileNotFoundError(f"{where}.template={config.template!r}: expected model, plain or a .jinja file")
    for key, good, expected in ranges:
        if not good:
            raise ValueError(f"{where}.{key}={config[key]!r}: {expected}")
