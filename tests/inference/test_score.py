import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.inference import score
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import Score, ScoreRequest
from imitation_jax.models import decoder, kv_cache
from imitation_jax.parallel.mesh import make_mesh


@pytest.fixture(scope="module")
def requests(model) -> list[ScoreRequest]:
    rng = np.random.default_rng(1)

    def ids(low, high):
        return rng.integers(0, model.config.vocab_size, rng.integers(low, high)).tolist()

    short = [ScoreRequest(ids(1, 9), ids(1, 9)) for _ in range(8)]
    return short + [ScoreRequest(ids(14, 21), ids(5, 13)) for _ in range(8)]


@pytest.fixture(scope="module")
def expected(model, requests) -> list[Score]:
    return [by_hand(model, request) for request in requests]


@functools.partial(jax.jit, static_argnums=0)
def all_logprobs(config, params, ids_S):
    x = decoder.hidden(config, params, ids_S[None], jnp.arange(len(ids_S))[None], jnp.zeros_like(ids_S)[None])
    return jax.nn.log_softmax(decoder.logits(params, x))[0]


def by_hand(model, request: ScoreRequest) -> Score:
    """One sequence alone, the log-probabilities of the whole vocabulary at every position."""
    ids = np.zeros(model.config.max_position_embeddings, np.int32)
    read = [*request.context, *request.continuation[:-1]]
    ids[: len(read)] = read
    logprobs = np.asarray(all_logprobs(model.config, model.params, ids))[len(request.context) - 1 : len(read)]
    total = sum(float(logprobs[i, token]) for i, token in enumerate(request.continuation))
    return Score(total, logprobs.argmax(-1).tolist() == list(request.continuation), len(request.continuation))


def assert_equal(scores: list[Score], expected: list[Score]) -> None:
    np.testing.assert_allclose([s.logprob for s in scores], [s.logprob for s in expected], rtol=1e-6, atol=1e-5)
    assert [(s.greedy, s.tokens) for s in scores] == [(s.greedy, s.tokens) for s in expected]


@pytest.fixture
def shapes(monkeypatch) -> list[tuple[int, int]]:
    """Rows and positions of every step that is scored."""
    seen = []

    def note(*args, **kwargs):
        seen.append(args[3]["tokens"].shape)
        return score_step(*args, **kwargs)

    score_step = score.score_step
    monkeypatch.setattr(score, "score_step", note)
    return seen


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_equal_one_sequence_at_a_time_at_every_batch_size(model, one_device, requests, expected, batch_size):
    assert_equal(Engine(model, one_device, batch_size).score(requests), expected)


def test_order_does_not_matter_and_results_are_handed_on_as_they_come(engine, requests, expected):
    order = np.random.default_rng(2).permutation(len(requests)).tolist()
    seen = {}
    scores = engine.score([requests[i] for i in order], on_result=seen.setdefault)
    assert_equal(scores, [expected[i] for i in order])
    assert [seen[i] for i in range(len(order))] == scores


@pytest.mark.parametrize("spec", ["fsdp=2", "fsdp=8", "fsdp=4,tensor=2", "data=2,fsdp=2,sequence=2"])
def test_every_mesh_gives_the_same_scores(model, requests, expected, shapes, spec):
    count = int(np.prod([int(part[-1]) for part in spec.split(",")]))
    engine = Engine(model, make_mesh(spec, jax.devices()[:count]), batch_size=1)
    assert_equal(engine.score(requests), expected)
    ways = engine.mesh.shape["data"] * engine.mesh.shape["fsdp"]
    assert max(shapes)[0] == ways > 1 and engine.tokens_forwarded < 64 * ways * 4  # more than one row is filled


def test_greedy_is_what_the_model_would_write(model, engine):
    context, greedy = [5, 6, 7], []
    for _ in range(3):
        scored = engine.score([ScoreRequest([*context, *greedy], [i]) for i in range(model.config.vocab_size)])
        assert np.exp([s.logprob for s in scored]).sum() == pytest.approx(1, abs=1e-5)
        greedy.append(int(np.argmax([s.logprob for s in scored])))
        assert [i for i, s in enumerate(scored) if s.greedy] == greedy[-1:]
    other = [greedy[0], (greedy[1] + 1) % 300, greedy[2]]
    right, wrong = engine.score([ScoreRequest(context, greedy), ScoreRequest(context, other)])
    assert right.greedy and not wrong.greedy


def test_what_sequences_share_is_read_once(model, one_device, shapes):
    """Choices side by side after a question, questions after their examples: 7,520 tokens, 440 of them new."""
    rng = np.random.default_rng(5)

    def ids(count):
        return rng.integers(0, 300, count).tolist()

    requests = []
    for examples in (ids(90), ids(70)):
        for _ in range(10):
            question = [*examples, *ids(12)]
            requests += [ScoreRequest(question, choice) for choice in ([7, 8, i] for i in range(4))]
    engine = Engine(model, one_device, batch_size=2)
    assert_equal(engine.score(requests), [by_hand(model, request) for request in requests])
    read = {tuple([*r.context, *r.continuation[:-1]][: n + 1]) for r in requests for n in range(len(r.context) + 2)}
    assert 430 < len(read) <= 90 + 70 + 20 * 14
    assert engine.tokens_forwarded == sum(rows * length for rows, length in shapes) <= 1.6 * len(read)
    assert max(shapes) == (1, 128)


def test_many_choices_after_a_short_context(model, engine, shapes):
    requests = [ScoreRequest([1, 2], [i % 300]) for i in range(10_000)]
    scores = engine.score(requests)
    assert scores[300:600] == scores[:300]
    assert_equal(scores[:20], [by_hand(model, request) for request in requests[:20]])
    assert shapes == [(1, 64)]


def test_sequences_longer_than_a_step_and_nested_in_each_other(model, one_device):
    ids = np.random.default_rng(6).integers(0, 300, 128).tolist()
    requests = [ScoreRequest(ids[:n], [ids[n]]) for n in range(1, 128, 3)] + [ScoreRequest(ids[:3], ids[3:])] * 2
    engine = Engine(model, one_device, batch_size=1)
    assert_equal(engine.score(requests), [by_hand(model, request) for request in requests])
    assert engine.tokens_forwarded == 128


def test_each_token_is_scored_apart_with_the_likeliest_in_its_place(model, one_device):
    ids = np.random.default_rng(7).integers(0, 300, 128).tolist()
    requests = [ScoreRequest(ids[:3], ids[3:], 20), ScoreRequest(ids[:1], ids[1:90], 2), ScoreRequest(ids, [5], 0)]
    requests += [ScoreRequest(ids[:5], ids[5:80])]
    scores = Engine(model, one_device, batch_size=1).score(requests)
    assert_equal(scores, [by_hand(model, request) for request in requests])
    logprobs_SV = np.asarray(all_logprobs(model.config, model.params, np.array(ids, np.int32)))
    for request, score_ in zip(requests[:3], scores, strict=False):
        count, start = request.alternatives, len(request.context) - 1
        wanted_SV = logprobs_SV[start : start + len(request.continuation)]
        wanted = [row_V[token] for row_V, token in zip(wanted_SV, request.continuation, strict=True)]
        np.testing.assert_allclose([token.logprob for token in score_.each], wanted, rtol=1e-6, atol=1e-5)
        likely_SA = np.argsort(-wanted_SV, axis=1)[:, :count]
        assert [list(token.alternatives) for token in score_.each] == likely_SA.tolist()
        found = [list(token.alternatives.values()) for token in score_.each]
        np.testing.assert_allclose(found, np.take_along_axis(wanted_SV, likely_SA, axis=1), rtol=1e-6, atol=1e-5)
    assert not scores[3].each


def test_more_alternatives_than_there_are_told_are_refused(engine):
    with pytest.raises(ValueError, match="request 1: 21 alternatives, at most 20"):
        engine.score([ScoreRequest([1], [2], 20), ScoreRequest([1], [2], 21)])


def test_empty_continuations_and_contexts(model, engine):
    bos = model.tokenizer.bos_id
    empty, first, written_out = engine.score([ScoreRequest([1], []), ScoreRequest([], [5]), ScoreRequest([bos], [5])])
    assert empty == Score(0.0, True, 0)
    assert first.logprob == pytest.approx(written_out.logprob, abs=1e-5)
    assert engine.score([ScoreRequest([], [])]) == [Score(0.0, True, 0)]
    assert engine.score([]) == []


def test_an_empty_context_without_bos_and_eos_is_refused(model, one_device, byte_tokenizer):
    bare = Engine(dataclasses.replace(model, tokenizer=byte_tokenizer()), one_device)
    with pytest.raises(ValueError, match="request 1: nothing to continue"):
        bare.score([ScoreRequest([1], [2]), ScoreRequest([], [5])])


def test_what_does_not_fit_is_refused_with_its_lengths(model, engine):
    whole = ScoreRequest([1] * 100, [2] * 29)  # the last token is asked for and not read
    assert_equal(engine.score([whole]), [by_hand(model, whole)])
    with pytest.raises(ValueError, match="request 1: a context of 100 tokens and a continuation of 30 .* 128 pos"):
        engine.score([whole, ScoreRequest([1] * 100, [2] * 30)])
    with pytest.raises(ValueError, match="request 0: token id 300 is not in the model's vocabulary of 300"):
        engine.score([ScoreRequest([1], [300])])


def test_the_memory_budget_bounds_a_step(model, one_device, requests, expected, shapes):
    roomy = Engine(model, one_device, batch_size=64)
    assert_equal(roomy.score(requests), expected)
    needed = roomy._runner.memory.needed(128, 256)
    engine = Engine(model, one_device, batch_size=64, memory_gib=needed / 2**30)
    shapes.clear()
    assert_equal(engine.score(requests), expected)
    assert max(length for _, length in shapes) == 128
    with pytest.raises(ValueError, match=r"memory: the smallest batch needs 0.00 GiB beside the weights and .*0.00"):
        Engine(model, one_device, memory_gib=1e-6).score(requests)


def test_another_model_of_the_same_shape_needs_no_compilation(engine, make_model, one_device, requests):
    first = engine.score(requests)
    programs = score.score_step._cache_size()
    second = Engine(make_model(1), one_device, batch_size=8).score(requests)
    assert score.score_step._cache_size() == programs
    assert all(abs(a.logprob - b.logprob) > 1e-3 for a, b in zip(first, second, strict=True))


def test_a_step_needs_no_more_memory_than_planned(model, one_device):
    """Logits exist only where they are asked for; what XLA plans is below what the engine reckons with."""
    config = dataclasses.replace(model.config, vocab_size=20_000, hidden_size=256, intermediate_size=512)
    params = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    engine = Engine(dataclasses.replace(model, config=config), one_device)
    engine._runner.model = (config, params)
    cache = jax.eval_shape(lambda: kv_cache.init_cache(config, 1, 2048))
    rows = {name: jax.ShapeDtypeStruct((1, 1024), jnp.int32) for name in ("tokens", "positions", "ends", "seen")}
    asked = {name: jax.ShapeDtypeStruct((1024,), jnp.int32) for name in ("row", "place", "target")}
    number = jax.ShapeDtypeStruct((), jnp.int32)
    with jax.set_mesh(one_device):
        lowered = score.score_step.lower(config, params, cache, rows, number, asked, number, dtype=jnp.dtype("float32"))
        temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    reckoned = engine._runner.memory.needed(1024, 0)
    assert 0.2 * reckoned < temporary < reckoned < 4 * 1024 * config.vocab_size


def test_bfloat16_is_close(model, one_device, requests, expected):
    scores = Engine(model, one_device, batch_size=8, compute_dtype="bfloat16").score(requests)
    off = [abs(s.logprob - e.logprob) / e.tokens for s, e in zip(scores, expected, strict=True)]
    assert 0 < np.mean(off) < 0.2


def test_settings_out_of_range(model):
    for wrong in ({"batch_size": 0}, {"compute_dtype": "float16"}, {"memory_gib": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Engine(model, **wrong)
