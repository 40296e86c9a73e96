"""The command, as a shell and a supervisor see it."""

import re
import signal
import socket
import threading

import httpx
import openai
import pytest
from test_commands import one_line


def until_it_serves(process) -> tuple[str, list[str]]:
    """Its address, and what it has logged."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"serving student: chat page (http://[\d.]+:\d+)/", line):
            return found[1], lines
    raise AssertionError("".join(lines))


def test_it_serves_until_sigterm_and_lets_who_is_being_answered_finish(command, student_folder):
    process = command.start("serve", f"--model={student_folder}", "--port=0", "--rows=2", "--context=512")
    url, lines = until_it_serves(process)
    rest = threading.Thread(target=lambda: lines.extend(process.stderr))
    rest.start()
    assert "<title>" in httpx.get(url).text
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    asked = {"model": "student", "messages": [{"role": "user", "content": "the river"}], "temperature": 0}
    stream = client.chat.completions.create(**asked, max_tokens=400, stream=True)
    next(stream)
    process.send_signal(signal.SIGTERM)
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
    assert process.wait() == 0
    rest.join()
    assert lines[-1].endswith("stopped\n") and "Traceback" not in "".join(lines)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--host=0.0.0.0"], "--host=0.0.0.0: others could use this server; set IMITATION_API_KEY in the environment"),
        (["--context=1000"], "--context=1000: student has 512 positions"),
        (["--port=99999"], "--port=99999: must be from 0 to 65535"),
        (["--host=192.0.2.1.example"], "--host=192.0.2.1.example: others could use"),
        (["--template=nowhere.jinja"], "nowhere.jinja: no such chat template"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(command, student_folder, flags, message):
    assert message in one_line(command("serve", f"--model={student_folder}", *flags))


def test_a_taken_port(command, student_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(command("serve", f"--model={student_folder}", f"--port={port}"))
    assert f"--port={port}: cannot be served there" in line and "in use" in line


def test_a_public_address_is_served_to_who_has_the_key(command, student_folder, monkeypatch):
    monkeypatch.setenv("IMITATION_API_KEY", "a-secret")
    process = command.start("serve", f"--model={student_folder}", "--port=0", "--host=0.0.0.0")
    url, lines = until_it_serves(process)
    url = url.replace("0.0.0.0", "127.0.0.1") + "/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer a-secret"}).status_code == 200
    process.terminate()
    assert process.wait() == 0 and "a-secret" not in "".join(lines) + process.stderr.read()
