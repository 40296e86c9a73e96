"""The official client against a real server."""

import numpy as np
import pytest

from imitation_jax.inference.requests import ScoreRequest

MESSAGES = [{"role": "system", "content": "be clear"}, {"role": "user", "content": "the river begins"}]
ASKED = {"model": "student", "messages": MESSAGES, "temperature": 0}


@pytest.fixture(scope="module")
def client(start):
    return start(names=("student", "teacher")).client()


@pytest.fixture(scope="module")
def prompt(engine) -> list[int]:
    return engine.template.prompt_ids(MESSAGES)


@pytest.fixture(scope="module")
def greedy(offline, prompt):
    [generation] = offline([prompt], max_new_tokens=24)
    return generation


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["student", "teacher"]
    assert client.models.retrieve("teacher").id == "teacher"


def test_a_chat_is_answered_as_without_a_server(client, prompt, greedy):
    for name in ("student", "teacher"):
        answer = client.chat.completions.create(**ASKED | {"model": name}, max_completion_tokens=24)
        [choice] = answer.choices
        assert (choice.message.role, choice.message.content) == ("assistant", greedy.text)
        assert choice.finish_reason == greedy.finish_reason and choice.logprobs is None and answer.model == name
        counts = len(prompt), len(greedy.ids), len(prompt) + len(greedy.ids)
        usage = answer.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == counts


def test_without_a_limit_a_chat_goes_on_to_the_end_of_the_context(client, offline, prompt):
    [generation] = offline([prompt], max_new_tokens=256 - len(prompt))
    assert client.chat.completions.create(**ASKED).choices[0].message.content == generation.text


def test_a_stream_is_the_same_text_in_pieces(client, greedy):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**ASKED, max_tokens=24, stream=True, stream_options=options))
    *news, last = chunks
    assert news[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in news]
    assert "".join(texts) == greedy.text and sum(map(bool, texts)) > 3
    assert [chunk.choices[0].finish_reason for chunk in news if chunk.choices[0].finish_reason] == ["length"]
    assert not last.choices and last.usage.completion_tokens == 24
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("stream", [False, True])
def test_each_token_of_a_chat_comes_with_its_logprob_and_the_likeliest(client, engine, prompt, greedy, stream):
    asked = {**ASKED, "max_tokens": 24, "logprobs": True, "top_logprobs": 3, "stream": stream}
    answer = client.chat.completions.create(**asked)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    [score] = engine.score([ScoreRequest(prompt, greedy.ids, 3)])
    spelled = [engine.tokenizer.decode([token]) for token in greedy.ids]
    assert [token.token for token in tokens] == spelled
    # A token of this small student is often a part of a character.
    assert [token.bytes for token in tokens] == [None if "\ufffd" in text else [*text.encode()] for text in spelled]
    np.testing.assert_allclose([t.logprob for t in tokens], [one.logprob for one in score.each], atol=1e-4)
    for token, one in zip(tokens, score.each, strict=True):
        assert token.top_logprobs[0].token == token.token  # greedy
        found, wanted = [top.logprob for top in token.top_logprobs], list(one.alternatives.values())
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_seed_decides_what_is_drawn(client):
    def texts(**settings):
        answer = client.chat.completions.create(**ASKED | {"temperature": 1.0}, max_tokens=12, **settings)
        return [choice.message.content for choice in answer.choices]

    first = texts(seed=3, n=3)
    assert texts(seed=3, n=3) == first and texts(seed=4) == first[1:2] and len(set(first)) == 3
    assert texts() != texts()


def test_a_stop_string_ends_the_text_before_it(client, greedy):
    stop = greedy.text[10:14]
    whole = client.chat.completions.create(**ASKED, max_tokens=24, stop=stop)
    pieces = client.chat.completions.create(**ASKED, max_tokens=24, stop=[stop, "never"], stream=True)
    wanted = greedy.text[: greedy.text.index(stop)]
    assert whole.choices[0].message.content == wanted and whole.choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == wanted


def test_completions_of_texts_and_of_tokens(client, engine, offline):
    texts = ["the river", "water follows the easiest path", ""]
    eos = [engine.tokenizer.eos_id]
    wanted = [generation.text for generation in offline([*texts[:2], eos], max_new_tokens=8)]
    asked = {"model": "student", "temperature": 0, "max_tokens": 8}
    assert [choice.text for choice in client.completions.create(**asked, prompt=texts).choices] == wanted
    ids = [engine.tokenizer.encode(text) for text in texts[:2]]
    assert [choice.text for choice in client.completions.create(**asked, prompt=ids).choices] == wanted[:2]
    assert client.completions.create(**asked, prompt=ids[0]).choices[0].text == wanted[0]
    answer = client.completions.create(**asked, prompt=texts[0], n=2, echo=True)
    assert [choice.text for choice in answer.choices] == [texts[0] + wanted[0]] * 2
    assert answer.usage.completion_tokens == 16 and answer.usage.prompt_tokens == len(ids[0])


def test_completions_are_streamed_side_by_side(client, engine, offline):
    texts = ["the river", "in summary the answer"]
    generations = offline(texts, max_new_tokens=20)
    asked = {"model": "student", "temperature": 0, "max_tokens": 20, "stream": True}
    found, tokens = ["", ""], [[], []]
    for chunk in client.completions.create(**asked, prompt=texts, echo=True):
        found[chunk.choices[0].index] += chunk.choices[0].text
    assert found == [text + generation.text for text, generation in zip(texts, generations, strict=True)]
    for chunk in client.completions.create(**asked, prompt=texts, logprobs=0):
        [choice] = chunk.choices
        assert choice.logprobs.text_offset[:1] in ([], [len("".join(tokens[choice.index]))])
        tokens[choice.index] += choice.logprobs.tokens
    assert tokens == [[engine.tokenizer.decode([token]) for token in generation.ids] for generation in generations]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_tells_the_logprobs_of_the_prompt(client, engine, max_tokens):
    """As lm-evaluation-harness asks for a continuation's log-likelihood, and for whether it is greedy."""
    context, continuation = "the river", " begins high in the mountains"
    ids = [engine.tokenizer.encode(text) for text in (context, continuation)]
    prompts = [ids[0] + ids[1], ids[0] + ids[0]]
    answer = client.completions.create(
        model="student", prompt=prompts, max_tokens=max_tokens, temperature=0, logprobs=1, echo=True
    )
    scores = engine.score([ScoreRequest(ids[0], ids[1], 1), ScoreRequest(ids[0], ids[0], 1)])
    for choice, score, prompt in zip(answer.choices, scores, prompts, strict=True):
        told = choice.logprobs
        assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(prompt) + max_tokens
        assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
        assert "".join(told.tokens) == choice.text
        assert [choice.text[at:] for at in told.text_offset][-1] == told.tokens[-1]
        asked = slice(len(ids[0]), len(prompt))
        np.testing.assert_allclose(sum(told.token_logprobs[asked]), score.logprob, atol=1e-4)
        likeliest = [max(top.values()) for top in told.top_logprobs[asked]]
        np.testing.assert_allclose(likeliest, [max(one.alternatives.values()) for one in score.each], atol=1e-4)


def test_a_greedy_continuation_is_told_to_be_one(client, engine, offline):
    [generation] = offline(["the river"], max_new_tokens=6)
    prompt = engine.tokenizer.encode("the river") + generation.ids
    answer = client.completions.create(model="student", prompt=prompt, max_tokens=0, logprobs=1, echo=True)
    told = answer.choices[0].logprobs
    for logprob, top in list(zip(told.token_logprobs, told.top_logprobs, strict=True))[-6:]:
        assert logprob == max(top.values())


def test_a_text_may_be_given_in_parts(client, greedy):
    parts = [{"type": "text", "text": "the river"}, {"type": "text", "text": " begins"}]
    messages = [MESSAGES[0], {"role": "user", "content": parts, "name": "somebody"}]
    answer = client.chat.completions.create(**ASKED | {"messages": messages}, max_tokens=24)
    assert answer.choices[0].message.content == greedy.text
