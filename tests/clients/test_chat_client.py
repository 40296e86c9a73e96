import asyncio

import pytest
from api_server import reply

from imitation_jax.clients import config as clients
from imitation_jax.clients.budget import Budget, Tokens
from imitation_jax.clients.chat_client import ChatClient, Request, estimate, read_key
from imitation_jax.clients.http import ApiError, RefusedError

HELLO = [{"role": "user", "content": "hello"}]


def answer(content="hi", model="m-1", finish_reason="stop", **more):
    message = {"role": "assistant", "content": content}
    return reply({"model": model, "choices": [{"message": message, "finish_reason": finish_reason}], **more})


def chat(server, budget=None, **options):
    """What asks the server for the answer to messages, in an event loop of its own each time."""
    config = clients.get_config()
    config.update({"url": server.url + "/", "model": "m-1", "key": "", "first_wait": 0.01, "tries": 1, **options})
    config.parameters = {"max_tokens": 5}
    client = ChatClient(config, budget or Budget())

    def ask(messages, **more):
        async def main():
            try:
                return await client.ask(Request(messages, more))
            finally:
                await client.api.close()

        return asyncio.run(main())

    return ask


def test_an_answer_with_all_that_it_tells(server):
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "details": {"cached": 0}}
    server.replies = [answer(usage=usage)]
    budget = Budget(tokens=1000)
    got = chat(server, budget=budget)(HELLO, seed=7)
    assert (got.text, got.model, got.finish_reason, got.usage) == ("hi", "m-1", "stop", usage)
    assert budget.known == (9, 1)
    asked = server.asked[0]
    assert (asked["model"], asked["messages"], asked["max_tokens"], asked["seed"]) == ("m-1", HELLO, 5, 7)
    assert asked["authorization"] is None


def test_an_answer_that_tells_little(server):
    server.replies = [reply({"choices": [{"message": {"content": "hi"}}]})]
    budget = Budget(tokens=1000)
    got = chat(server, budget=budget)(HELLO)
    assert (got.text, got.model, got.finish_reason, got.usage) == ("hi", None, None, None)
    assert budget.uncertain.completion == 5 and budget.uncertain.prompt >= 5


@pytest.mark.parametrize("model", ["m-1-0613", "m-1-2024-08-06", "m-1@20240806", "named"])
def test_models_that_are_the_asked_one(server, model):
    server.replies = [answer(model=model)]
    assert chat(server, also_answers="named")(HELLO).model == model


@pytest.mark.parametrize("model", ["m-1-mini", "m-10", "m-1x", "m-1-32k", "m", "", 7])
def test_models_that_are_not(server, model):
    server.replies = [answer(model=model)]
    with pytest.raises(ApiError, match=f"an answer of '{model}', asked was 'm-1'"):
        chat(server)(HELLO)


@pytest.mark.parametrize(
    "bad, message",
    [
        (reply({"error": {"message": "upstream"}}), "an error as answer: upstream"),
        (reply({"error": "upstream"}), "an error as answer: upstream"),
        (reply({"choices": []}), "without choices"),
        (reply({"choices": None}), "without choices"),
        (reply({"choices": [7]}), "cannot be read"),
        (reply({"choices": {"a": 1}}), "cannot be read"),
        (answer(content=["parts"]), "cannot be read"),
        (answer(content="\udc00"), "cannot be read"),
    ],
)
def test_answers_that_are_none(server, bad, message):
    server.replies = [bad]
    with pytest.raises(ApiError, match=message):
        chat(server)(HELLO)
    server.replies = [bad, bad, answer()]
    server.asked.clear()
    assert chat(server, tries=3)(HELLO).text == "hi"


@pytest.mark.parametrize("content", [" \n", "", None])
def test_a_model_that_says_nothing_is_asked_again_and_then_refuses(server, content):
    server.replies = [answer(content=content), answer(content=content), answer()]
    assert chat(server, tries=3)(HELLO).text == "hi"
    server.replies = [answer(content=content)]
    with pytest.raises(RefusedError, match="the model says nothing, asked 4 times"):
        chat(server, tries=4, first_wait=100)(HELLO)
    assert len(server.asked) == 3 + 4


def test_what_a_filter_ended_is_refused(server):
    server.replies = [answer(content="", finish_reason="content_filter")]
    with pytest.raises(RefusedError, match="filter"):
        chat(server, tries=5)(HELLO)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "usage", [None, {}, [1], {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 10**30}]
)
def test_a_usage_that_is_none_counts_at_the_worst(server, usage):
    server.replies = [answer(usage=usage)]
    budget = Budget(tokens=1000)
    chat(server, budget=budget)(HELLO)
    assert budget.known == Tokens() and budget.unknown == 1


def test_what_a_template_puts_around_is_learned(server):
    server.replies = [answer(usage={"prompt_tokens": 500, "completion_tokens": 1})]
    budget = Budget(tokens=1000)
    asker = chat(server, budget=budget)
    asker(HELLO)
    with pytest.raises(ValueError, match="501 spent, the next request may cost 505"):
        asker(HELLO)


@pytest.mark.parametrize("key", ["sk 1", "sk\n1", "schlüssel"])
def test_what_no_key_can_be(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ValueError, match="SOME_KEY holds") as error:
        read_key("SOME_KEY")
    assert key not in str(error.value)
    for wrong, message in (("sk-123", "must be the name"), ("gsk_12ab", "the variable is not set")):
        with pytest.raises(ValueError, match=message) as error:
            read_key(wrong)  # the key in the wrong place
        assert wrong not in str(error.value)
    monkeypatch.setenv("SOME_KEY", " sk-1\n")
    assert read_key("SOME_KEY") == "sk-1"


def test_estimate():
    assert estimate([{"role": "user", "content": "four" * 10}, {"role": "user", "content": "é"}]) == 11
