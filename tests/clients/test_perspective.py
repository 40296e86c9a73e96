import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from api_server import perspective, reply

from imitation_jax.clients.answer_cache import Cache
from imitation_jax.clients.budget import BudgetSpentError
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.clients.perspective import Perspective, Toxicity

SCORE_ALL = """
import sys
from imitation_jax.clients.answer_cache import Cache
from imitation_jax.clients.perspective import Perspective
url, cache, per_second, count = sys.argv[1:]
client = Perspective(Cache(cache), url=url, per_second=float(per_second), first_wait=0.01)
found = client.scores([f"text {number}" for number in range(int(count))])
print(sum(toxicity.score for toxicity in found), client.budget.spent)
"""


@pytest.fixture
def client(server, tmp_path, monkeypatch):
    """`client(**options)` asks the server, with the cache that all clients of a test share."""
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "secret")
    server.replies = [perspective]
    options = {"url": server.url, "per_second": 1000, "first_wait": 0.01, "tries": 3}
    return lambda **more: Perspective(Cache(tmp_path / "cache"), **{**options, **more})


def asked(server) -> Counter:
    return Counter(request["comment"]["text"] for request in server.asked)


def test_scores_and_errors_in_order_each_text_asked_once(client, server):
    texts = ["text 7", "", "text 50", "Wie bitte?", "text 7"]
    expected = [
        Toxicity(0.07),
        Toxicity(None, "COMMENT_EMPTY"),
        Toxicity(0.5),
        Toxicity(None, "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"),
        Toxicity(0.07),
    ]
    first = client()
    assert first.scores(texts) == expected
    assert first.budget.spent == 4 and set(asked(server).values()) == {1}
    request = server.asked[0]
    assert request["languages"] == ["en"] and request["requestedAttributes"] == {"TOXICITY": {}}
    assert request["doNotStore"] is True and request["key"] == "secret"
    # What was refused is not asked again either.
    assert client().scores(texts) == expected and len(server.asked) == 4
    # Another language, or server, is another question.
    client(language="de").scores(["text 7"])
    assert len(server.asked) == 5
    assert client().scores([]) == []


def test_a_server_in_trouble(client, server):
    low = {"attributeScores": {"TOXICITY": {"summaryScore": {"value": 1.7}}}}
    server.replies = [(429, {}, {}, 0), (500, b"x", {}, 0), perspective, (200, {"attributeScores": {}}, {}, 0),
                      (200, low, {}, 0), perspective]  # fmt: skip
    assert client(per_second=1000, tries=3).scores(["text 1"]) == [Toxicity(0.01)]
    assert client(per_second=1000, tries=3).scores(["text 2"]) == [Toxicity(0.02)]


def test_one_failure_stops_the_rest_and_keeps_what_was_answered(client, server):
    def fail_from_5(body):
        number = int(body["comment"]["text"].removeprefix("text "))
        return perspective(body) if number < 5 else (500, {}, {}, 0)

    server.replies = [fail_from_5]
    texts = [f"text {number}" for number in range(100)]
    with pytest.raises(ApiError, match="gave up after 2 tries: 500"):
        client(per_second=4, first_wait=0.001, tries=2).scores(texts)
    assert set(texts[:6]) <= set(asked(server)) and len(asked(server)) <= 5 + 2 * 4
    server.replies = [perspective]
    assert client().scores(texts) == [Toxicity(number / 100) for number in range(100)]
    assert all(asked(server)[text] == 1 for text in texts[:5])


def test_a_bad_key_is_no_error_of_a_text(client, server):
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    server.replies = [reply({"error": {"message": "API key not valid.", "details": details}}, 400)]
    with pytest.raises(RefusedError, match="400 API key not valid."):
        client().scores(["text 1"])
    server.replies = [perspective]
    assert client().scores(["text 1"]) == [Toxicity(0.01)]


def test_no_key(client, monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", " ")
    with pytest.raises(ValueError, match="PERSPECTIVE_API_KEY is not set"):
        client()


def test_the_quota_is_kept(client, server):
    start = time.monotonic()
    client(per_second=20).scores([f"text {number}" for number in range(10)])
    assert time.monotonic() - start >= 9 / 20 - 0.01


def test_the_budget_stops_a_start_and_the_next_one_goes_on(client, server):
    texts = [f"text {number}" for number in range(10)]
    with pytest.raises(BudgetSpentError, match="budget of 6 requests is spent"):
        client(budget=6, per_second=1.0 * 1000).scores(texts)
    last = client(budget=6)
    assert [toxicity.score for toxicity in last.scores(texts)] == [number / 100 for number in range(10)]
    assert last.budget.spent == 4 and set(asked(server).values()) == {1} and len(server.asked) == 10


def test_killed_and_started_again_it_asks_nothing_twice(client, server, tmp_path):
    """kill -9 with requests under way: only those that had no answer yet are asked again."""
    answered, silent = Counter(), threading.Event()

    def perspective_or_hang(body):
        if silent.is_set():
            return 500, {}, {}, 60
        answered[body["comment"]["text"]] += 1
        return perspective(body)

    server.replies = [perspective_or_hang]
    argv = [sys.executable, "-c", SCORE_ALL, server.url, tmp_path / "killed", "40", "100"]
    for enough in (10, 50):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        while answered.total() < enough:
            time.sleep(0.005)
        silent.set()
        kept = sqlite3.connect(tmp_path / "killed")
        while kept.execute("SELECT COUNT(*) FROM answers").fetchone()[0] < len(answered):
            time.sleep(0.005)  # what was answered is still on its way
        process.kill()
        assert process.wait() == -signal.SIGKILL
        silent.clear()
    before = answered.total()
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    total, spent = map(float, done.stdout.split())
    assert total == pytest.approx(sum(range(100)) / 100)
    assert spent == 100 - before and len(answered) == answered.total() == 100
