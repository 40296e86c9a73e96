import dataclasses

import numpy as np
import pytest

from imitation_jax.inference import generate
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.inference.sequence import SequenceState

NO_STOP = frozenset()
decode, verify = generate.decode, generate.verify


@pytest.fixture(scope="module")
def requests() -> list[GenerateRequest]:
    rng = np.random.default_rng(5)
    lengths = ((1, 50), (20, 23), (2, 40), (30, 22), (9, 40), (12, 7), (12, 1))
    return [GenerateRequest(rng.integers(0, 300, prompt).tolist(), new, stop_ids=NO_STOP) for prompt, new in lengths]


@pytest.fixture(scope="module")
def offline(engine, requests):
    return engine.generate(requests)


def finish(session, found):
    while moved := session.step(max_steps=3):
        found |= {sequence: generation for sequence, generation in moved if generation is not None}
    return found


def test_requests_join_while_others_are_being_written(engine, requests, offline):
    session = engine.session(rows=8, slots=128)
    sequences, found = session.add(requests[:2]), {}
    for request in requests[2:]:
        assert session.free == 8 - len(sequences) + len(found)
        found |= {sequence: generation for sequence, generation in session.step(max_steps=3) if generation is not None}
        sequences += session.add([request])
    finish(session, found)
    assert [found[sequence].ids for sequence in sequences] == [generation.ids for generation in offline]
    assert session.free == 8 and session.step() == []


def test_few_texts_do_not_pay_for_empty_rows(engine, requests, offline, monkeypatch):
    sizes = []
    monkeypatch.setattr(generate, "decode", lambda *args, **kw: sizes.append(len(args[4])) or decode(*args, **kw))
    session = engine.session(rows=16, slots=128)
    [alone] = session.add(requests[:1])
    found = {sequence: generation for sequence, generation in session.step(max_steps=3) if generation is not None}
    sequences = [alone, *session.add(requests[1:4])]
    session.step(max_steps=3)
    sequences += session.add(requests[4:])
    finish(session, found)
    assert [found[sequence].ids for sequence in sequences] == [generation.ids for generation in offline]
    assert sizes[:3] == [1, 4, 16] and sizes[-1] == 1  # the first is the longest


def test_who_leaves_gives_his_row_to_the_next(engine, requests, offline):
    session = engine.session(rows=2, slots=128)
    leaving, staying = session.add(requests[:2])
    session.step(max_steps=3)
    assert session.free == 0
    session.drop(leaving)
    assert session.free == 1
    never, after = *session.add([requests[2]]), *session.add([requests[3]])  # one more than there are rows
    session.drop(never)
    found = finish(session, {})
    assert {sequence: generation.ids for sequence, generation in found.items()} == {
        staying: offline[1].ids,
        after: offline[3].ids,
    }


def test_nothing_to_write_ends_at_once(engine, requests):
    session = engine.session(rows=2, slots=128)
    [sequence] = session.add([dataclasses.replace(requests[0], max_new_tokens=0)])
    [(ended, generation)] = session.step()
    assert ended is sequence and (generation.ids, generation.finish_reason) == ([], "length")


def test_what_does_not_fit_the_slots_is_refused(engine):
    session = engine.session(rows=2, slots=64)
    with pytest.raises(ValueError, match="request 1: a prompt of 20 tokens and 45 new ones do not fit 64 tokens"):
        session.add([GenerateRequest([1] * 20, 44), GenerateRequest([1] * 20, 45)])
    assert session.free == 2


def test_scores_leave_an_open_session_its_memory(model, one_device, requests):
    sized = Engine(model, one_device, batch_size=1)._runner
    needed = sized.memory.needed(64, 256)
    engine = Engine(model, one_device, batch_size=1, memory_gib=(needed + sized.held(1, 128) / 2) / 2**30)
    session = engine.session(rows=1, slots=128)
    asked = [ScoreRequest([1, 2], [3])]
    assert engine.score(asked)
    with pytest.raises(ValueError, match="memory"):
        engine.score(asked, beside=session)


@pytest.mark.parametrize("right", [0, 1, 4, 15])
def test_drafts_change_nothing_but_the_number_of_steps(engine, requests, offline, monkeypatch, right):
    """However much of a draft is right; `limit`, stop ids, stop strings and draws end or go on as without."""
    asked = [*requests[:4], dataclasses.replace(requests[4], temperature=0.9, top_p=0.9, seed=8)]
    first = engine.generate(asked)
    asked[1] = dataclasses.replace(asked[1], stop_ids=frozenset({first[1].ids[11]}))
    asked[2] = dataclasses.replace(asked[2], stop=(first[2].text[15:18],))
    monkeypatch.setattr(SequenceState, "draft", lambda self, count: None)
    expected = engine.generate(asked)
    assert [g.finish_reason for g in expected] == ["length", "stop", "stop", "length", "length"]

    def draft(self, count):
        known = first[[tuple(r.prompt) for r in asked].index(tuple(self.prompt))].ids[len(self.ids) :][:count]
        return np.array([(i if n < right else i + 1) % 300 for n, i in enumerate([*known, *[0] * count][:count])])

    calls = []
    monkeypatch.setattr(SequenceState, "draft", draft)
    monkeypatch.setattr(generate, "verify", lambda *args, **kw: calls.append(0) or verify(*args, **kw))
    written = engine.generate(asked)
    for here, there in zip(written, expected, strict=True):
        assert (here.ids, here.text, here.finish_reason) == (there.ids, there.text, there.finish_reason)
        assert here.logprob == pytest.approx(there.logprob, abs=1e-4)
    # Five texts take a chunk of 16, then no more than four are left, the longest with 34 tokens to go.
    assert len(calls) == -(-34 // (right + 1))


def test_a_draft_is_what_followed_the_same_tokens(byte_tokenizer):
    prompt = [7, 1, 2, 3, 4, 5, 6, 9, 1, 2, 3]
    sequence = SequenceState(0, GenerateRequest([1], 99), prompt, 99, NO_STOP, byte_tokenizer())
    assert sequence.draft(5) is None
    sequence.ids = [4]
    assert sequence.draft(5).tolist() == [5, 6, 9, 1, 2]
    sequence.ids = [8, 8, 8, 8, 8]
    assert sequence.draft(5).tolist() == [8, 8, 8, 8, 8]
    sequence.ids = [5, 6, 8, 5, 6, 8, 5, 6]
    assert sequence.draft(5).tolist() == [8, 5, 6, 8, 5]


def test_stable_text_never_takes_anything_back(model, one_device, requests):
    engine = Engine(model, one_device, batch_size=4)
    [free] = engine.generate([dataclasses.replace(requests[0], temperature=1.0)])
    stop = free.text[20:26]
    [sequence] = (session := engine.session(1, 64)).add(
        [dataclasses.replace(requests[0], temperature=1.0, stop=(stop, "never"))]
    )
    shown, generation = [""], None
    while generation is None:
        [(_, generation)] = session.step(max_steps=1)
        shown.append(sequence.stable_text())
    assert all(after.startswith(before) for before, after in zip(shown[:-1], shown[1:-1], strict=False))
    assert generation.text.startswith(shown[-2]) and generation.text == free.text[: free.text.index(stop)]
    assert len(shown) > 10


def test_stable_text_holds_back_half_a_character_and_half_a_stop(byte_tokenizer):
    tokenizer = byte_tokenizer()
    sequence = SequenceState(0, GenerateRequest([1], 99, stop=("##END",)), [1], 99, NO_STOP, tokenizer)
    shown = []
    for token in tokenizer.encode("aé##E # b"):
        sequence.ids.append(token)
        shown.append(sequence.stable_text())
    assert shown == ["a", "a", "aé", "aé", "aé", "aé", "aé##E ", "aé##E ", "aé##E # ", "aé##E # b"]
