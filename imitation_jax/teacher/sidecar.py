"""What is kept of a teacher's answer, and where the books of an output are."""

from datetime import UTC, datetime
from pathlib import Path

from ml_collections import ConfigDict

from imitation_jax.clients.chat_client import Reply
from imitation_jax.clients.request_pool import Prompt
from imitation_jax.core.append_only import beside


def ledger(output: str) -> Path:
    """The file of what was spent on that output."""
    return beside(output, ".spend.sqlite")


def parameters(config: ConfigDict) -> dict:
    """What makes an answer what it is, kept with each."""
    return {"model": config.model, **config.parameters.to_dict()}


def same_parameters(path: str, row: dict, config: ConfigDict) -> None:
    """Raises ValueError, naming the differing keys, unless the row was asked as this config asks."""
    there, now = row.get("parameters"), parameters(config)
    if not isinstance(there, dict):
        raise ValueError(f"{path}: holds rows that are no answers of collect; use another --output")
    differ = [key for key in dict.fromkeys([*there, *now]) if there.get(key) != now.get(key)]
    if differ:
        changes = ", ".join(f"{key} ({there.get(key)} there, {now.get(key)} now)" for key in differ)
        raise ValueError(f"{path}: was asked with other parameters: {changes}; use another --output")


def answer_row(prompt: Prompt, reply: Reply, config: ConfigDict) -> dict:
    """The line of a dialogue file, which is an answer file's line as well, with all that is known of the answer."""
    row = {key: prompt[key] for key in ("id", "original_id") if key in prompt}
    return row | {
        "source": config.source or config.model,
        "messages": [*prompt["messages"], {"role": "assistant", "content": reply.text}],
        "instruction": prompt["messages"][-1]["content"],
        "output": reply.text,
        "generator": reply.model or config.model,
        "model": reply.model,
        "parameters": parameters(config),
        **prompt.get("more", {}),
        "finish_reason": reply.finish_reason,
        "usage": reply.usage,
        "seconds": round(reply.seconds, 3),
        "time": now(),
    }


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
