"""The command, as a shell and a supervisor see it."""

import dataclasses
import re
import signal
import socket
import threading

import httpx
import openai
import pytest
from starlette.applications import Starlette
from test_commands import one_line

from imitation_jax.core import web
from imitation_jax.serving import server

SETTINGS = server.Settings("127.0.0.1", 0, "model", "float32", "fsdp=-1", 0.0, 2, 256, 16, 2**16, 60.0)


def until_it_serves(process) -> tuple[str, list[str]]:
    """Its port, and what it has logged."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"serving student: chat page http://0\.0\.0\.0:(\d+)/", line):
            return found[1], lines
    raise AssertionError("".join(lines))


def test_who_has_the_key_is_served_from_anywhere_and_may_finish_after_sigterm(command, student_folder, monkeypatch):
    monkeypatch.setenv("IMITATION_API_KEY", "a-secret")
    flags = ("--port=0", "--host=0.0.0.0", "--rows=2", "--context=512")
    process = command.start("serve", f"--model={student_folder}", *flags)
    port, lines = until_it_serves(process)
    rest = threading.Thread(target=lambda: lines.extend(process.stderr))
    rest.start()
    url = f"http://127.0.0.1:{port}"
    assert "<title>" in httpx.get(url).text
    assert httpx.get(f"{url}/v1/models").status_code == 401
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="a-secret", max_retries=0)
    asked = {"model": "student", "messages": [{"role": "user", "content": "the river"}], "temperature": 0}
    stream = client.chat.completions.create(**asked, max_tokens=400, stream=True)
    next(stream)
    process.send_signal(signal.SIGTERM)
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
    assert process.wait() == 0
    rest.join()
    log = "".join(lines)
    assert lines[-1].endswith("stopped\n") and "Traceback" not in log and "a-secret" not in log


def test_sigterm_before_the_first_request_is_not_missed(monkeypatch):
    """However early: here as soon as the log says that it serves."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(web.logging, "info", lambda text, *_: "serving" in text and signal.raise_signal(15))
    try:
        with web.bind("127.0.0.1", 0, None, server.KEY) as bound:
            web.run(Starlette(), bound, "serving at {url}")
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"host": "0.0.0.0"}, "--host=0.0.0.0: others could use this server; set IMITATION_API_KEY in the environment"),
        ({"host": "192.0.2.1.example"}, "--host=192.0.2.1.example: others could use"),
        ({"port": 99999}, "--port=99999: must be from 0 to 65535"),
        ({"context": 1000}, "--context=1000: student has 512 positions"),
        ({"template": "nowhere.jinja"}, "nowhere.jinja: no such chat template"),
        ({"rows": 0}, "--rows=0: must be more than 0"),
    ],
)
def test_what_cannot_be_served_is_said(student_folder, changes, message):
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        server.serve({student_folder: "student"}, dataclasses.replace(SETTINGS, **changes), None)


def test_no_model_at_all(command):
    assert "--model is empty" in one_line(command("serve", "--model="))


def test_a_taken_port(command, student_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(command("serve", f"--model={student_folder}", f"--port={port}"))
    assert f"--port={port}: cannot be served there" in line and "in use" in line


def test_a_port_is_taken_before_the_model_is_loaded():
    with web.bind("127.0.0.1", 0, None, server.KEY) as first:
        with pytest.raises(OSError, match="cannot be served there"):
            web.bind("127.0.0.1", first.getsockname()[1], None, server.KEY)
