import asyncio
import contextlib
import time
from email.utils import formatdate

import pytest
from api_server import reply

from imitation_jax.clients.budget import NOTHING, Budget, BudgetSpentError, Tokens
from imitation_jax.clients.http import ApiError, JsonApi, RefusedError
from imitation_jax.clients.rate_limiter import RateLimiter, StoppedError

OK = b"HTTP/1.1 200 OK\r\n"


def open_api(server, **options):
    options = {"limiter": RateLimiter(1000), "budget": Budget(), "first_wait": 0.01, **options}
    return JsonApi(server.url, {"X-Goog-Api-Key": "secret"}, **options)


def post(api, **options):
    return api.post({"question": "six by nine"}, lambda answer: answer["n"], **options)


def ask(server, worst=NOTHING, **options):
    async def main():
        api = open_api(server, **options)
        try:
            return await post(api, worst=worst)
        finally:
            await api.close()

    return asyncio.run(main())


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
        (200, {"n": 41}, {}, 2.0),  # too slow
        (200, b"\xff\xfe\x00", {}, 0),
    ],
    ids=lambda bad: f"{bad[0]} {str(bad[1])[:12]}",
)
def test_what_another_try_can_help(server, bad):
    server.replies = [bad, bad, reply({"n": 42})]
    budget = Budget()
    late = bad[3] > 0
    assert ask(server, budget=budget, timeout=0.5 if late else 60) == 42
    assert len(server.asked) == budget.spent == 3 or (late and budget.spent > 3)


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
    with pytest.raises(ApiError, match="gave up after 2 tries: ConnectError"):
        ask(server, tries=2)
    server.url = "no address"
    with pytest.raises(ValueError, match="no address: no address to ask"):
        ask(server)


def test_a_pause_that_the_server_asks_for_holds_for_all(server):
    server.replies = [reply({}, 429, Retry_After="0.6"), reply({"n": 1})]

    async def main():
        api, paused = open_api(server), asyncio.Event()
        pause = api.limiter.pause
        api.limiter.pause = lambda seconds: (pause(seconds), paused.set())
        first = asyncio.create_task(post(api))
        await paused.wait()
        await asyncio.gather(first, *(post(api) for _ in range(3)))
        await api.close()

    asyncio.run(main())
    assert len(server.asked) == 5
    assert all(asked["at"] - server.asked[0]["at"] >= 0.6 for asked in server.asked[1:])


@pytest.mark.parametrize("begin", [OK + b"Content-Length: 900\r\n\r\n", OK + b"X-Slow: ", b"HTTP/1.1 200 "])
def test_an_answer_that_drips_in_is_not_waited_for(server, begin):
    """Each byte comes in time, the whole does not."""

    dripped = []

    def drip(handler):
        handler.wfile.write(begin)
        for drop in range(300):
            handler.wfile.write(b" ")
            dripped.append(drop)
            time.sleep(0.1)

    server.replies = [reply(drip), reply({"n": 42})]
    start = time.monotonic()
    with pytest.raises(ApiError, match="no answer within 0.5 s"):
        ask(server, timeout=0.5, tries=1)
    assert 0.5 <= time.monotonic() - start and len(dripped) < 250
    assert ask(server, timeout=30) == 42


def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(server):
    server.replies = [reply({}, 307, Location=server.url + "/elsewhere"), reply({"n": 42})]
    with pytest.raises(RefusedError, match="307 Temporary Redirect"):
        ask(server)
    assert len(server.asked) == 1


def test_no_netrc_replaces_the_key(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin somebody\npassword else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.replies = [reply({"n": 42})]
    ask(server)
    assert server.asked[0]["authorization"] is None and server.asked[0]["key"] == "secret"


def test_no_error_holds_the_key(server):
    for bad in (reply({"error": "secret!"}, 400), reply({"error": "secret!"}, 500), reply({"no": "secret"})):
        server.replies = [bad]
        with pytest.raises(ApiError, match=r"\*\*\*") as error:
            ask(server, tries=1)
        assert "secret" not in str(error.value)


def test_stopped_it_does_not_wait_for_another_try(server):
    server.replies = [reply({}, 500)]

    async def main():
        api = open_api(server, first_wait=100)
        asking = asyncio.create_task(post(api))
        while not server.asked:
            await asyncio.sleep(0.001)
        api.limiter.stop()
        with pytest.raises(StoppedError):
            await asking

    asyncio.run(main())
    assert len(server.asked) == 1


@pytest.mark.parametrize("idle", [60.0, 0.2])
def test_connections_are_used_again_unless_the_server_closed_them(server, idle):
    server.replies = [reply({"n": 1}, seconds=0.05)]
    server.keep_open(idle)

    async def main():
        api = open_api(server, tries=1)
        for pause in (0, 1):
            await asyncio.sleep(pause)
            assert await asyncio.gather(*(post(api) for _ in range(8))) == [1] * 8
        await api.close()

    asyncio.run(main())
    ports = [asked["port"] for asked in server.asked]
    same = set(ports[:8]) & set(ports[8:])
    assert len(same) == (8 if idle > 1 else 0)


def test_what_is_billed(server):
    """Known where an answer says it; nothing where none can have been made; the worst case else."""
    worst = Tokens(10, 20)
    usage = {"usage": [3, 4]}
    cases = [
        (reply({"n": 42, **usage}), Tokens(3, 4), Tokens()),
        (reply({"m": 42, **usage}), Tokens(3, 4), Tokens()),  # no good, but paid for
        (reply({"n": 42}), Tokens(), worst),
        (reply(b"{"), Tokens(), worst),
        (reply({}, 500), Tokens(), worst),
        (reply({}, 503), Tokens(), Tokens()),
        (reply({}, 429), Tokens(), Tokens()),
        (reply({}, 400), Tokens(), Tokens()),
        (reply({"n": 42}, seconds=20), Tokens(), worst),  # too late
    ]
    for bad, known, uncertain in cases:
        server.replies, budget = [bad], Budget(tokens=1000)
        with contextlib.suppress(ApiError):
            cost_of = lambda answer: Tokens(*answer["usage"]) if "usage" in answer else None  # noqa: E731
            ask(server, budget=budget, worst=worst, cost_of=cost_of, tries=1, timeout=1 if bad[3] else 60)
        assert (budget.known, budget.uncertain) == (known, uncertain), bad
    server.close()
    budget = Budget(tokens=1000)
    with pytest.raises(ApiError):
        ask(server, budget=budget, worst=worst, tries=2)
    assert budget.known == budget.uncertain == Tokens() and budget.spent == 2


def test_tries_count_against_budget_and_rate(server):
    server.replies = [reply({}, 500)]
    start = time.monotonic()
    with pytest.raises(BudgetSpentError, match="budget of 4"):
        ask(server, limiter=RateLimiter(10), budget=Budget(4))
    assert len(server.asked) == 4 and time.monotonic() - start >= 0.4
