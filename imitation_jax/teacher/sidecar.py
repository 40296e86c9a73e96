"""What is kept of a teacher's answer, and the files beside an output: its ledger, what failed, what was set aside."""

from datetime import UTC, datetime
from pathlib import Path

from ml_collections import ConfigDict

from imitation_jax.clients.chat_client import Reply, Request
from imitation_jax.core.append_only import beside


def ledger(output: str) -> Path:
    """The file of what was spent on that output."""
    return beside(output, ".spend.sqlite")


def parameters(config: ConfigDict) -> dict:
    """What makes an answer what it is, kept with each."""
    return {"model": config.model, **config.parameters.to_dict()}


def same_parameters(path: str, row: dict, config: ConfigDict) -> None:
    """Raises ValueError, naming the differing keys, unless the row was asked as this config asks."""
    old, new = row.get("parameters"), parameters(config)
    if not isinstance(old, dict):
        raise ValueError(f"{path}: holds rows that are no answers of collect; use another --output")
    differ = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if differ:
        changes = ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} now)" for key in differ)
        raise ValueError(f"{path}: was asked with other parameters: {changes}; use another --output")


def answer_row(request: Request, reply: Reply, config: ConfigDict) -> dict:
    """The line of a dialogue file, which is an answer file's line as well, with all that is known of the answer.

    It begins with what `request.about` holds: the id.
    """
    return request.about | {
        "source": config.source or config.model,
        "messages": [*request.messages, {"role": "assistant", "content": reply.text}],
        "instruction": request.messages[-1]["content"],
        "output": reply.text,
        "generator": reply.model or config.model,
        "model": reply.model,
        "parameters": parameters(config),
        **request.more,
        "finish_reason": reply.finish_reason,
        "usage": reply.usage,
        "seconds": round(reply.seconds, 3),
        "time": now(),
    }


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
