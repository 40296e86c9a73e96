import time
from email.utils import formatdate

import pytest
from api_server import reply

from imitation_jax.clients.http import ApiError, RefusedError, post
from imitation_jax.clients.limits import Budget, BudgetSpentError, RateLimit


def ask(server, **options):
    options = {"limit": RateLimit(1000), "budget": Budget(), "first_wait": 0.01, **options}
    headers = {"X-Goog-Api-Key": "secret"}
    return post(server.url, {"question": "six by nine"}, lambda answer: answer["n"], headers=headers, **options)


def test_an_answer(server):
    server.replies = [reply({"n": 42})]
    budget = Budget()
    assert ask(server, budget=budget) == 42
    assert server.asked[0]["question"] == "six by nine" and server.asked[0]["key"] == "secret"
    assert budget.spent == 1


@pytest.mark.parametrize(
    "bad",
    [
        (429, {"error": {"message": "slow down"}}, {}, 0),
        (500, b"<html>oops</html>", {}, 0),
        (503, b"", {}, 0),
        (200, b'{"n": 4', {}, 0),  # cut off
        (200, b"[42]", {}, 0),
        (200, {"m": 42}, {}, 0),
        (200, {"n": 41}, {}, 1.0),  # too slow
        (200, b"\xff\xfe\x00", {}, 0),
    ],
    ids=lambda bad: f"{bad[0]} {str(bad[1])[:12]}",
)
def test_what_another_try_can_help(server, bad):
    server.replies = [bad, bad, reply({"n": 42})]
    budget = Budget()
    assert ask(server, budget=budget, timeout=0.3) == 42
    assert len(server.asked) == budget.spent == 3


def test_waits_double_and_are_as_long_as_the_server_says(server):
    date = {"Date": formatdate(1_700_000_000, usegmt=True), "Retry-After": formatdate(1_700_000_001, usegmt=True)}
    server.replies = [
        reply({}, 500),
        reply({}, 500),
        reply({}, 429, Retry_After="0.7"),
        (503, {}, date, 0),
        reply({"n": 1}),
    ]
    ask(server, first_wait=0.1)
    first, second, third, fourth = (
        after["at"] - before["at"] for before, after in zip(server.asked, server.asked[1:], strict=False)
    )
    assert first >= 0.1 and second >= 0.2 and third >= 0.7 and fourth >= 0.9


def test_a_refusal_is_told_at_once_and_without_the_key(server):
    answer = {"error": {"code": 403, "message": "API key not valid", "status": "PERMISSION_DENIED"}}
    server.replies = [reply(answer, 403)]
    with pytest.raises(RefusedError, match=r"127.0.0.1:\d+: 403 API key not valid") as refused:
        ask(server)
    assert refused.value.status == 403 and refused.value.answer == answer and len(server.asked) == 1
    assert "secret" not in str(refused.value)
    server.replies = [reply(b"no JSON", 404)]
    with pytest.raises(RefusedError, match="404 Not Found") as refused:
        ask(server)
    assert refused.value.answer == {}


def test_it_gives_up(server):
    server.replies = [reply({"error": {"message": "quota is gone"}}, 429)]
    with pytest.raises(ApiError, match="gave up after 3 tries: 429 quota is gone"):
        ask(server, tries=3)
    assert len(server.asked) == 3


def test_nobody_there(server):
    server.close()
    with pytest.raises(ApiError, match="gave up after 2 tries: ConnectionError"):
        ask(server, tries=2)
    server.url = "no address"
    with pytest.raises(ValueError, match="no address: no address to ask"):
        ask(server)


def test_tries_count_against_budget_and_rate(server):
    server.replies = [reply({}, 500)]
    start = time.monotonic()
    with pytest.raises(BudgetSpentError, match="budget of 4"):
        ask(server, limit=RateLimit(10), budget=Budget(4))
    assert len(server.asked) == 4 and time.monotonic() - start >= 0.4
