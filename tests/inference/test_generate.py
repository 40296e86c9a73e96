import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.inference import generate
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, Generation, ScoreRequest
from imitation_jax.models import decoder
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh

TIE = 1e-4
NO_STOP = frozenset()


@pytest.fixture(scope="module")
def requests() -> list[GenerateRequest]:
    rng = np.random.default_rng(3)
    lengths = ((1, 50), (33, 23), (2, 55), (40, 22), (31, 25), (9, 50), (34, 23), (41, 22))
    return [GenerateRequest(rng.integers(0, 300, prompt).tolist(), new, stop_ids=NO_STOP) for prompt, new in lengths]


@functools.partial(jax.jit, static_argnums=0)
def next_logits(config, params, ids, length):
    x = decoder.hidden(config, params, ids, jnp.arange(ids.shape[1])[None], jnp.zeros_like(ids))
    return decoder.logits(params, x[:, length - 1][:, None])[0, 0]


def recompute(model, prompt: list[int], count: int) -> tuple[list[int], list[np.ndarray]]:
    """Greedy tokens without a cache, and the logits that each was chosen from."""

    ids, logits = list(prompt), []
    for _ in range(count):
        padded = np.zeros((1, model.config.max_position_embeddings), np.int32)
        padded[0, : len(ids)] = ids
        logits.append(np.asarray(next_logits(model.config, model.params, padded, len(ids))))
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], logits


def assert_same_path(written: list[int], other: list[int], logits: list[np.ndarray]) -> None:
    """Equal token for token up to the first tie."""
    for token, expected, row in zip(written, other, logits, strict=True):
        if token != expected:
            first, second = np.sort(row)[::-1][:2]
            assert {token, expected} == set(np.argsort(-row)[:2].tolist()) and first - second < TIE
            return


@pytest.fixture(scope="module")
def expected(model, requests) -> list[tuple[list[int], list[np.ndarray]]]:
    return [recompute(model, request.prompt, request.max_new_tokens) for request in requests]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_greedy_generation_equals_recomputation_without_a_cache(model, one_device, requests, expected, batch_size):
    engine = Engine(model, one_device, batch_size)
    for generation, (ids, logits) in zip(engine.generate(requests), expected, strict=True):
        assert generation.finish_reason == "length"
        assert_same_path(generation.ids, ids, logits)
        assert len(set(ids)) > 3  # the test model does say different things


@pytest.mark.parametrize("spec", ["fsdp=2", "fsdp=2,sequence=2,tensor=2"])
def test_every_mesh_and_order_writes_the_same(model, requests, expected, spec):
    order = np.random.default_rng(4).permutation(len(requests)).tolist()
    seen = {}
    count = int(np.prod([int(part[-1]) for part in spec.split(",")]))
    engine = Engine(model, make_mesh(spec, jax.devices()[:count]), batch_size=1)
    written = engine.generate([requests[i] for i in order], on_result=seen.setdefault)
    assert [seen[i] for i in range(len(order))] == written
    for generation, i in zip(written, order, strict=True):
        assert_same_path(generation.ids, *expected[i])


def test_draws_depend_on_the_request_alone(model, engine, one_device, requests):
    sampled = [
        dataclasses.replace(request, temperature=0.8, top_p=1.0 - 0.1 * (i % 3), seed=i)
        for i, request in enumerate(requests)
    ]
    one = Engine(model, one_device, batch_size=1).generate(sampled)
    mixed = engine.generate([*requests, *sampled[::-1]])
    assert [g.ids for g in mixed[: len(requests) - 1 : -1]] == [g.ids for g in one]
    again = engine.generate([dataclasses.replace(r, seed=r.seed + 100) for r in sampled])
    assert all(a.ids != b.ids for a, b in zip(again, one, strict=True))


def test_log_probability_is_that_of_the_score(engine, requests):
    written = engine.generate([dataclasses.replace(r, temperature=float(i % 2)) for i, r in enumerate(requests)])
    scores = engine.score([ScoreRequest(r.prompt, g.ids) for r, g in zip(requests, written, strict=True)])
    np.testing.assert_allclose([g.logprob for g in written], [s.logprob for s in scores], atol=1e-3, rtol=1e-5)
    assert [s.greedy for s in scores][::2] == [True] * len(scores[::2])


def test_a_stop_id_ends_the_text_and_is_no_part_of_it(model, engine, requests, expected):
    for at in (0, 5, 18):
        ids = expected[3][0]
        stop = ids[at]
        first = ids.index(stop)
        others = set(range(290, 298)) - set(ids[:first])
        request = dataclasses.replace(requests[3], stop_ids=frozenset({stop, *others}))
        *_, generation = engine.generate([*requests[4:], request])
        assert (generation.ids, generation.finish_reason) == (ids[:first], "stop")
        assert generation.text == model.tokenizer.decode(ids[:first], skip_special_tokens=True)


def test_the_templates_stop_ids_are_the_default(model, one_device, requests, expected):
    ids = expected[5][0]
    template = type("Template", (), {"stop_ids": frozenset({ids[2]})})()
    request = dataclasses.replace(requests[5], stop_ids=None)
    [generation] = Engine(dataclasses.replace(model, template=template), one_device).generate([request])
    assert generation.ids == ids[: ids.index(ids[2])]


def test_a_stop_string_over_several_tokens_is_found_and_cut_off(model, engine, requests):
    request = dataclasses.replace(requests[4], max_new_tokens=32)
    free = engine.generate([*requests[4:], request])[-1]
    for start, length in ((0, 3), (13, 5), (14, 2), (22, 4)):  # 13 to 18 lies across the border of two chunks
        stop = free.text[start : start + length]
        at = free.text.index(stop)
        *others, generation = engine.generate([*requests[4:], dataclasses.replace(request, stop=("\0never", stop))])
        assert (generation.text, generation.finish_reason) == (free.text[:at], "stop")
        assert generation.ids == free.ids[: len(generation.ids)]
        written = model.tokenizer.decode(generation.ids, skip_special_tokens=True)
        assert stop in written and stop not in model.tokenizer.decode(generation.ids[:-1], skip_special_tokens=True)
        assert [len(other.ids) for other in others] == [r.max_new_tokens for r in requests[4:]]
        [score] = engine.score([ScoreRequest(request.prompt, generation.ids)])
        assert generation.logprob == pytest.approx(score.logprob, abs=1e-3)


def test_the_device_stops_when_every_row_has(engine, requests, monkeypatch):
    calls = []

    def count(*args, **kwargs):
        calls.append(0)
        return decode(*args, **kwargs)

    decode = generate.decode
    monkeypatch.setattr(generate, "decode", count)
    long = [dataclasses.replace(requests[i], max_new_tokens=33) for i in (0, 2, 4, 5) * 2]
    free = engine.generate(long)
    assert len(calls) == 3
    calls.clear()
    engine.generate([dataclasses.replace(r, stop=(f.text[2:6],)) for r, f in zip(long, free, strict=True)])
    assert len(calls) == 1


def test_generation_ends_with_the_models_context(engine):
    lengths = (100, 127, 128)
    written = engine.generate([GenerateRequest([1] * n, 50, stop_ids=NO_STOP) for n in lengths])
    assert [(len(g.ids), g.finish_reason) for g in written] == [(28, "length"), (1, "length"), (0, "length")]
    assert written[2] == Generation("", [], "length", 0.0)
    with pytest.raises(ValueError, match="request 1: a prompt of 129 tokens and 50 new ones .* 128 positions"):
        engine.generate([GenerateRequest([1], 50), GenerateRequest([1] * 129, 50)])


def test_small_and_wrong_requests(model, engine):
    assert engine.generate([]) == []
    assert engine.generate([GenerateRequest([1, 2], 0)]) == [Generation("", [], "length", 0.0)]
    request = GenerateRequest([], 5, stop_ids=NO_STOP)
    after_bos = dataclasses.replace(request, prompt=[model.tokenizer.bos_id])
    assert engine.generate([request]) == engine.generate([after_bos])
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": -1}, {"prompt": [300]}):
        with pytest.raises(ValueError, match="request 0: "):
            engine.generate([dataclasses.replace(request, **wrong)])


def test_bfloat16_writes_too(model, one_device, requests):
    written = Engine(model, one_device, batch_size=8, compute_dtype="bfloat16").generate(requests)
    assert [len(g.ids) for g in written] == [r.max_new_tokens for r in requests]


def test_another_model_of_the_same_shape_needs_no_compilation(engine, make_model, one_device, requests):
    first = engine.generate(requests)
    programs = generate.decode._cache_size(), generate.prefill._cache_size()
    second = Engine(make_model(1), one_device, batch_size=8).generate(requests)
    assert (generate.decode._cache_size(), generate.prefill._cache_size()) == programs
    assert all(a.ids != b.ids for a, b in zip(first, second, strict=True))


def test_a_stop_string_that_is_a_special_token(smollm2_gguf, one_device):
    """Decoded text does not show it, as lm-eval's `until` often asks for it."""
    model = load_model(f"gguf:{smollm2_gguf}", one_device)
    prompt = model.template.prompt_ids([{"role": "user", "content": "What is the capital of France?"}])
    request = GenerateRequest(prompt, 24, stop=("<|im_end|>",), stop_ids=NO_STOP)
    [generation] = Engine(model, one_device, batch_size=1).generate([request])
    assert generation.finish_reason == "stop" and generation.text == "The capital of France is Paris."


def test_stops_are_a_tuple_of_strings(engine):
    for stop in ("\n", ("",)):
        with pytest.raises(ValueError, match="request 0: stop must be a tuple"):
            engine.generate([GenerateRequest([1], 5, stop=stop)])


def test_what_does_not_fit_the_memory_runs_in_fewer_rows(model, one_device, requests, expected):
    roomy = Engine(model, one_device, batch_size=16)
    least = roomy._runner.memory.needed(64, 256) + roomy._runner.held(1, 128)
    engine = Engine(model, one_device, batch_size=16, memory_gib=1.01 * least / 2**30)
    for generation, (ids, logits) in zip(engine.generate(requests), expected, strict=True):
        assert_same_path(generation.ids, ids, logits)
