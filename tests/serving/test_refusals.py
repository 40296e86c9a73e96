"""What is asked wrongly, too much, or by the wrong one; always in the shape that OpenAI's client understands."""

import http.client
import json
import re
import threading
import time

import httpx
import openai
import pytest

CHAT = {"model": "student", "messages": [{"role": "user", "content": "the river"}], "max_tokens": 4, "temperature": 0}
TEXT = {"model": "student", "prompt": "the river", "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module")
def server(start):
    return start()


def post(server, body, path="chat/completions", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.url}/v1/{path}", content=content, timeout=None, **options)


def error_of(response, status):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    "change, param, message",
    [
        ({"messages": None}, "messages", "messages: is missing"),
        ({"messages": []}, "messages", "messages: List should have at least 1 item"),
        ({"messages": ["x"]}, "messages[0]", "must be a valid dictionary"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            "messages[0].role",
            "must be 'system', 'user' or 'assistant'",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "must be a valid string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "must be a valid string",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "half a surrogate pair"),
        ({"messages": [{"role": "user", "content": "river " * 300}]}, "messages", "the limit of 256 tokens for both"),
        ({"max_tokens": 250}, "messages", r"\d+ tokens of a prompt and 250 of an answer do not fit the limit of 256"),
        ({"max_tokens": 0}, "max_tokens", "must be greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "must be a valid integer"),
        ({"temperature": -0.1}, "temperature", "must be greater than or equal to 0"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number"),
        ({"temperature": True}, "temperature", "must be a valid number"),
        ({"top_p": 1.1}, "top_p", "must be less than or equal to 1"),
        ({"n": 65}, "n", "1 prompts with 65 texts each, at most 64 in all"),
        ({"seed": "one"}, "seed", "must be a valid integer"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 items after validation, not 17"),
        ({"stop": [""]}, "stop[0]", "at least 1 char"),
        ({"stop": ["\udfff"]}, "stop[0]", "half a surrogate pair"),
        ({"stream": "yes"}, "stream", "must be a valid boolean"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "must be less than or equal to 20"),
        ({"tools": [{"type": "function"}]}, "tools", "is not supported here"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "must be 0"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "must be 'text'"),
        ({"seed": 2**70}, "seed", "must be less than or equal to"),
        ({"temperature": 10**400}, "temperature", "must be a valid number"),
        ({"stream_options": 1}, "stream_options", "must be a valid dictionary"),
        ({"temprature": 0.5}, "temprature", "is no parameter here"),
        ({"model": None}, "model", "is missing"),
        ({"model": 7}, "model", "must be a valid string"),
    ],
)
def test_a_wrong_parameter_is_named(server, change, param, message):
    error = error_of(post(server, CHAT | change), 400)
    assert error["param"] == param and re.search(message, error["message"]) and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": {}}, "neither a text, nor token ids"),
        ({"prompt": []}, "a list of 0, not of 1 to 64"),
        ({"prompt": ["x"] * 65}, "a list of 65, not of 1 to 64"),
        ({"prompt": [1, 512]}, "token id 512 is not in the model's vocabulary"),
        ({"prompt": [[1, 2], [-1]]}, "token id -1 is not"),
        ({"prompt": [1, "x"]}, "neither a text, nor token ids"),
        ({"prompt": [1] * 253}, "253 tokens of a prompt and 4 of an answer do not fit the limit of 256"),
        ({"prompt": [1] * 257, "max_tokens": 0}, "257 tokens of a prompt do not fit"),
        ({"prompt": ["x", "\ud800"]}, "prompt: holds half a surrogate pair"),
        ({"best_of": 3}, "best_of: must be 1"),
        ({"echo": True, "logprobs": 1, "stream": True}, "not with both echo and logprobs"),
    ],
)
def test_a_wrong_prompt_is_explained(server, change, message):
    assert message in error_of(post(server, TEXT | change, "completions"), 400)["message"]


def test_what_changes_nothing_may_be_said(server):
    idle = {"user": "me", "frequency_penalty": 0, "tools": [], "stop": None, "response_format": {"type": "text"}}
    assert post(server, CHAT | idle).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b'{"model"', b"[1]", b"null", b"[" * 60_000, b"\xff\xfe\xfa", b'{"x": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_bad(server, body):
    assert error_of(post(server, body), 400)["code"] == "bad_json"


@pytest.mark.parametrize("size", [2**16, 2**18, 2**23])
def test_a_large_request_is_refused_with_its_limit(server, size):
    error = error_of(post(server, CHAT | {"messages": [{"role": "user", "content": "x" * size}]}), 413)
    assert "larger than the limit of 65,536 bytes" in error["message"]


def test_a_large_request_of_unknown_length_as_well(server):
    def pieces():
        for _ in range(100):
            yield b" " * 1024

    response = httpx.post(f"{server.url}/v1/completions", content=pieces())
    error_of(response, 413)


def test_an_unknown_model_and_an_unknown_path(server):
    error = error_of(post(server, CHAT | {"model": "gpt-4"}), 404)
    assert error["code"] == "model_not_found" and "there is student" in error["message"]
    error_of(httpx.get(f"{server.url}/v1/models/gpt-4"), 404)
    error_of(httpx.get(f"{server.url}/v1/embeddings"), 404)
    assert httpx.get(f"{server.url}/v1/completions").headers["allow"] == "POST"


def test_pages_of_others_and_other_names_are_turned_away(server):
    error_of(httpx.get(f"{server.url}/v1/models", headers={"Host": "rebound.example"}), 403)
    error_of(post(server, CHAT, headers={"Origin": "http://other.example"}), 403)
    assert post(server, CHAT, headers={"Origin": server.url}).status_code == 200
    assert httpx.get(f"{server.url}/v1/models", headers={"Host": "LOCALHOST:80"}).status_code == 200


def test_a_wrong_key_opens_only_the_page(start):
    server = start(key="right")
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").chat.completions.create(**CHAT)
    error = error_of(httpx.get(f"{server.url}/v1/models"), 401)
    assert error["code"] == "invalid_api_key" and "right" not in error["message"]
    error_of(httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Basic right"}), 401)
    assert httpx.get(f"{server.url}/").status_code == 200
    assert server.client("right").chat.completions.create(**CHAT).choices


def test_the_page_asks_nobody_else_and_writes_text_as_text(server):
    response = httpx.get(f"{server.url}/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert not re.search(r"https?:|src=|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", response.text)


def test_a_full_queue_is_answered_with_when_to_come_back(start):
    server, answers = start(queue=1), []
    with server.held():
        first = threading.Thread(target=lambda: answers.append(post(server, CHAT)))
        first.start()
        server.until(waiting=1)
        refused = post(server, CHAT)
        assert error_of(refused, 429)["code"] == "queue_full" and int(refused.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            server.client().chat.completions.create(**CHAT, stream=True)
    first.join()
    assert answers[0].status_code == 200


def test_when_the_time_is_over_it_says_so(start):
    server = start(seconds=0.5)
    with server.held():
        for stream in (False, True):
            error = error_of(post(server, CHAT | {"stream": stream}), 503)
            assert error["code"] == "timeout" and error["type"] == "server_error"
        assert server.scheduler.waiting == 0


def test_a_stream_that_takes_too_long_says_so_in_the_stream(start):
    server, errors = start(seconds=3.0), []

    def read():
        try:
            list(server.client().chat.completions.create(**CHAT | {"max_tokens": 100}, stream=True))
        except openai.APIError as error:
            errors.append(error)

    with server.held() as go_on:
        reader = threading.Thread(target=read)
        reader.start()
        while server.scheduler.waiting == 0 and reader.is_alive():
            time.sleep(0.01)
        go_on()
        go_on()
        reader.join()
        assert "the time for a request is over" in errors[0].message
    server.until(writing=0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_not_finished_when_the_server_stops_is_told(start, caplog, stream):
    server, answers = start(), []
    server.http.config.timeout_graceful_shutdown = 0.1
    with server.held() as go_on:
        asking = threading.Thread(
            target=lambda: answers.append(post(server, CHAT | {"max_tokens": 100, "stream": stream}))
        )
        asking.start()
        server.until(waiting=1)
        go_on()
        go_on()
        server.until(writing=2)
        server.http.should_exit = True
        asking.join()
    if stream:
        assert answers[0].text.splitlines()[-2].startswith('data: {"error":{"message":"the server stops"')
    else:
        assert error_of(answers[0], 503)["code"] == "stopping"
    assert "Traceback" not in caplog.text


def test_a_body_that_never_ends_is_not_waited_for(start):
    server = start(seconds=0.5)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    response = connection.getresponse()
    assert response.status == 408 and json.load(response)["error"]["code"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_the_queue_makes_place(start, stream):
    server = start(queue=1)
    with server.held():
        with pytest.raises(openai.APITimeoutError):
            server.client(timeout=0.5).chat.completions.create(**CHAT, stream=stream)
        server.until(waiting=0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_gives_back_his_row(start, stream):
    server = start()
    [batch] = server.scheduler._batches.values()
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    with server.held() as go_on:
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT | {"max_tokens": 200, "stream": stream}))
        server.until(waiting=1)
        go_on()
        server.until(writing=2)
        connection.close()
        while not any(ticket.cancelled for ticket in batch.writing.values()):
            time.sleep(0.01)
    server.until(writing=0)
    assert batch._engine.tokens_forwarded < 300  # of both rows; 200 tokens would have been 400
    assert server.client().chat.completions.create(**CHAT).usage.completion_tokens == 4
