"""The command itself, killed at random moments while its teacher misbehaves."""

import json
import signal
import time
from random import Random

import pytest
from hostile_teacher import KEY, PRICES, QUICK, Tally

KINDS = [kind for kind in QUICK if not kind.startswith("429")]


@pytest.fixture
def flags(server, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    return [
        "--config=configs/teacher/gpt_3_5_turbo.py",
        f"--config.url={server.url}",
        "--config.model=teacher",
        "--config.key=TEACHER_KEY",
        f"--config.price.prompt={PRICES[0]}",
        f"--config.price.completion={PRICES[1]}",
        "--config.parameters.max_tokens=20",
        "--config.tokens_per_minute=0",
        "--config.concurrency=8",
        "--config.first_wait=0.02",
    ]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_asks_nothing_twice_that_is_on_disk(
    command, server, flags, write_prompts, rows, tmp_path, kills
):
    random, count = Random(kills), 40 * kills
    tally = Tally(lambda number: [KINDS[number % len(KINDS)]] * (number % 3 == 0))

    def reply(body):
        return *tally.reply(body)[:3], random.uniform(0, 0.1)

    server.replies = [reply]
    output, path = tmp_path / "out.jsonl", write_prompts(count)
    flags = [*flags, f"--prompts={path}", f"--output={output}", "--config.budget.dollars=1"]
    stops = sorted(random.uniform(0.05, 0.95) for _ in range(kills))
    for stop in stops:
        known = {json.loads(line)["instruction"] for line in whole_lines(output)}
        before = len(server.asked)
        process = command.start("collect", *flags)
        while tally.answered.total() < stop * count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        assert process.returncode == -9 and KEY not in out + err
        asked = {request["messages"][-1]["content"] for request in server.asked[before:]}
        assert not asked & known
        if random.random() < 0.5:
            with open(output, "ab") as file:
                file.write(b'{"id": "p7", "mess')  # what a full disk leaves
    result = command("collect", *flags)
    assert result.returncode == 0, result.stderr
    assert sorted(row["id"] for row in rows(output)) == sorted(f"p{number}" for number in range(count))
    assert all(row["output"] == f"You said: {row['instruction']}" for row in rows(output))
    # What was under way at a kill may have been paid for without being known.
    dry = command("collect", *flags, "--dry_run")
    assert dry.returncode == 0 and f"{count} answered, 0 refused, 0 to ask" in dry.stdout
    spent = float(dry.stdout.split("spent so far: ")[1].split(" tokens")[0].replace(",", ""))
    assert 0 <= spent - tally.prompt_tokens - tally.completion_tokens <= (8 * kills + count) * 140
    assert tally.answered.total() - count <= 8 * kills
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


def test_a_wrong_key_is_one_line_at_once(command, server, flags, write_prompts, tmp_path):
    def reply(body):
        return 401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}, {}, 0

    server.replies = [lambda body: (200, b"", {}, 900), reply]  # the first is still waiting for its answer
    begin = time.monotonic()
    result = command("collect", *flags, f"--prompts={write_prompts(500)}", f"--output={tmp_path / 'out.jsonl'}")
    assert result.returncode == 1 and time.monotonic() - begin < 600
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert "401 Incorrect API key provided: ***. (the key is what TEACHER_KEY holds)" in line
    assert KEY not in result.stdout + result.stderr and len(server.asked) <= 8


def test_interrupted_it_keeps_the_answers_under_way(command, server, flags, write_prompts, rows, tmp_path):
    tally = Tally()
    server.replies = [lambda body: (*tally.reply(body)[:3], 0.5)]
    output = tmp_path / "out.jsonl"
    # Where these tests run in the background, Ctrl-C is ignored by whatever they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = command.start("collect", *flags, f"--prompts={write_prompts(500)}", f"--output={output}")
    signal.signal(signal.SIGINT, before)
    while tally.answered.total() < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err
    assert "requests under way; interrupt again to lose their answers" in err and "HTTP Request" not in err
    assert len(rows(output)) == tally.answered.total() < 500


def whole_lines(path):
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
