import queue
import threading

import jax
import pytest

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.inference.session import Session
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.serving.scheduler import Job, QueueFullError, Scheduler, Update

NO_STOP = frozenset()


@pytest.fixture
def scheduler(student):
    mesh = make_mesh(devices=jax.devices()[:1])
    engines = {name: Engine(student, mesh, batch_size=8) for name in ("one", "other")}
    scheduler = Scheduler(engines, rows=8, slots={"one": 256, "other": 256}, queue=32)
    scheduler.start()
    yield scheduler
    scheduler.close()


def fulfilled(scheduler, model, *jobs):
    """The last update of each job."""
    updates: queue.Queue = queue.Queue()
    scheduler.submit(model, jobs, lambda *one: updates.put(one))
    last = {}
    while len(last) < len(jobs):
        index, one = updates.get()
        if not isinstance(one, Update) or one.finish_reason:
            last[index] = one
    return [last[index] for index in range(len(jobs))]


def test_two_models_write_and_score_in_turns(scheduler, engine, generate):
    texts = [GenerateRequest([n], 20, stop_ids=NO_STOP) for n in range(12)]
    score = ScoreRequest([1], [2, 3, 4], 0)
    found = {}

    def ask(model):
        found[model] = fulfilled(scheduler, model, *map(Job, texts), Job(score))

    threads = [threading.Thread(target=ask, args=(model,)) for model in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [generation.ids for generation in generate(texts)]
    assert len(found) == 2
    for *updates, scored in found.values():
        assert [one.ids for one in updates] == wanted
        assert scored.logprob == pytest.approx(engine.score([score])[0].logprob, abs=1e-4)


def test_a_wish_that_the_engine_refuses_takes_no_other_with_it(scheduler):
    good, long = GenerateRequest([1], 20, stop_ids=NO_STOP), GenerateRequest([1], 256, stop_ids=NO_STOP)
    first, refused, last = fulfilled(scheduler, "one", Job(good), Job(long), Job(good))
    assert len(first.ids) == len(last.ids) == 20
    assert isinstance(refused, ValueError) and "do not fit 256 tokens" in str(refused)


def test_all_or_none_of_the_wishes_are_queued(scheduler):
    with pytest.raises(QueueFullError):
        scheduler.submit("one", [Job(GenerateRequest([1], 1))] * 33, print)
    assert scheduler.waiting == 0


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_after_a_failure_of_the_device_all_are_told_and_the_next_is_served(scheduler, monkeypatch, kind):
    step = Session.step

    def fail(session, *args):
        monkeypatch.setattr(Session, "step", step)
        raise kind("out of memory")

    job = Job(GenerateRequest([1], 20, stop_ids=NO_STOP))
    whole = fulfilled(scheduler, "one", job)[0].ids
    monkeypatch.setattr(Session, "step", fail)
    for error in fulfilled(scheduler, "one", job, job):
        # A ValueError would say that the job is wrong.
        assert isinstance(error, RuntimeError) and str(error) == "out of memory"
    assert [update.ids for update in fulfilled(scheduler, "one", job, job)] == [whole] * 2
