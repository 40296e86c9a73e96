"""Crowds: everybody who stays gets his own answer, whoever else leaves."""

import asyncio
import contextlib
from random import Random

import httpx
import openai

from imitation_jax.inference.requests import GenerateRequest

WORDS = "the river begins high in the mountains where snow melts slowly every spring".split()


def asked_of(number: int) -> tuple[dict, int]:
    """A prompt and its most tokens, different for each number."""
    random = Random(number)
    content = " ".join([str(number), *random.choices(WORDS, k=random.randint(1, 20))])
    return {"messages": [{"role": "user", "content": content}]}, random.randint(5, 40)


def test_nobody_gets_what_another_asked_for_while_a_third_of_all_leave(start, engine, generate):
    count = 200
    server = start(queue=count)
    asked = [asked_of(number) for number in range(count)]
    requests = [GenerateRequest(engine.template.prompt_ids(body["messages"]), most) for body, most in asked]
    wanted = [generation.text for generation in generate(requests)]

    async def one(client: openai.AsyncOpenAI, number: int) -> str | None:
        body, most = asked[number]
        settings = {**body, "model": "student", "temperature": 0, "max_tokens": most}
        random = Random(number)
        leaves, streams = number % 3 == 0, random.random() < 0.6
        if leaves and not streams:
            with contextlib.suppress(openai.APITimeoutError):
                await client.chat.completions.create(
                    **settings | {"max_tokens": 200}, timeout=random.uniform(0.02, 0.1)
                )
            return None
        if not streams:
            return (await client.chat.completions.create(**settings)).choices[0].message.content
        text, chunks = "", 0
        async with await client.chat.completions.create(**settings, stream=True) as stream:
            async for chunk in stream:
                if leaves and chunks >= random.randint(0, 4):
                    return None
                text += chunk.choices[0].delta.content or ""
                chunks += 1
        return text

    async def all_of_them() -> list[str | None]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None) as http:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, http_client=http)
            return await asyncio.gather(*(one(client, number) for number in range(count)))

    found = asyncio.run(all_of_them())
    stayed = [number for number, text in enumerate(found) if text is not None]
    assert len(stayed) >= count * 0.6
    assert [found[number] for number in stayed] == [wanted[number] for number in stayed]
    server.until(writing=0, waiting=0)
    assert server.client().models.list().data


def test_a_crowd_beyond_the_queue_is_told_to_come_back_and_then_served(start, engine, offline):
    server = start(queue=3)
    body, _ = asked_of(0)
    [generation] = offline([engine.template.prompt_ids(body["messages"])], max_new_tokens=30)
    settings = {**body, "model": "student", "temperature": 0, "max_tokens": 30}

    async def one(client: httpx.AsyncClient) -> tuple[int, str]:
        for tries in range(10_000):
            response = await client.post(f"{server.url}/v1/chat/completions", json=settings)
            if response.status_code == 200:
                return tries, response.json()["choices"][0]["message"]["content"]
            assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1, response.text
            await asyncio.sleep(0.05)

    async def all_of_them():
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None) as client:
            return await asyncio.gather(*(one(client) for _ in range(32)))

    found = asyncio.run(all_of_them())
    assert {text for _, text in found} == {generation.text} and sum(tries for tries, _ in found) > 0
