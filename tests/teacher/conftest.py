import json

import pytest
from api_server import Server
from hostile_teacher import KEY, MODEL, PRICES

from imitation_jax.teacher import config as teacher


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def config(server, monkeypatch):
    """Asks the server, in a hurry."""
    monkeypatch.setenv("TEACHER_KEY", KEY)
    config = teacher.get_config()
    config.url, config.model, config.key = server.url, MODEL, "TEACHER_KEY"
    config.price.prompt, config.price.completion = PRICES
    config.parameters.max_tokens = 50
    config.concurrency, config.first_wait, config.timeout = 16, 0.02, 60.0
    return config


@pytest.fixture
def write_prompts(tmp_path):
    """`write_prompts(count)` is a file of so many different prompts."""

    def write(count, name="prompts.jsonl"):
        path = tmp_path / name
        rows = ({"id": f"p{number}", "instruction": f"What is {number} and {number}?"} for number in range(count))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def rows():
    """The rows of a JSON Lines file, none where there is no file."""

    def read(path):
        try:
            with open(path, encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    return read
