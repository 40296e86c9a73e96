"""A small student with clear next tokens, and real servers in front of it, with rows of one shape."""

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import openai
import pytest
import uvicorn

from imitation_jax.core.web import http_server
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, save_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.serving.app import Limits, make_app
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.scheduler import Job, Scheduler
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

CONFIG = llama.LlamaConfig(512, 64, 172, 3, 8, 4, 8, 512)
ROWS, SLOTS = 8, 256  # of all that is computed here, since programs take longer to compile than to run


@pytest.fixture(scope="session")
def student(tiny_tokenizer) -> LoadedModel:
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        drawn = np.ones(leaf.shape) if "norm" in str(path[-1]) else rng.normal(0, 0.2, leaf.shape)
        return jax.numpy.asarray(drawn, leaf.dtype)

    shapes = jax.eval_shape(lambda: decoder.init(CONFIG, jax.random.key(0)))
    tokenizer = load_tokenizer(tiny_tokenizer)
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return LoadedModel(llama, CONFIG, params, tokenizer, load_template("model", tokenizer))


@pytest.fixture(scope="session")
def student_folder(student, tmp_path_factory) -> str:
    """`hf:DIR` of it."""
    source = f"hf:{tmp_path_factory.mktemp('models') / 'student'}"
    save_model(student, source)
    return source


@pytest.fixture(scope="session")
def engine(student) -> Engine:
    """For answers without a server."""
    return Engine(student, make_mesh(devices=jax.devices()[:1]), ROWS)


@pytest.fixture(scope="session")
def generate(engine):
    """`generate(requests)` is `engine.generate(requests)` in rows of the servers' shape."""

    def generate_(requests):
        session, found = engine.session(ROWS, SLOTS), {}
        writers = session.add(requests)
        while moved := session.step():
            found |= {writer: generation for writer, generation in moved if generation is not None}
        return [found[writer] for writer in writers]

    return generate_


@pytest.fixture(scope="session")
def offline(engine, generate):
    """`offline(["text"], max_new_tokens=9)` is what the engine continues texts with, greedily."""

    def continue_(texts, **settings):
        prompts = [engine.tokenizer.encode(text) if isinstance(text, str) else text for text in texts]
        return generate([GenerateRequest(prompt, **settings) for prompt in prompts])

    return continue_


@dataclasses.dataclass
class Server:
    """A running server. `url` ends before /v1."""

    url: str
    scheduler: Scheduler
    http: uvicorn.Server

    def client(self, key: str = "none", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def until(self, **counts: int) -> None:
        """Waits until the scheduler's `waiting` or `writing` is so many."""
        while any(getattr(self.scheduler, name) != count for name, count in counts.items()):
            time.sleep(0.01)

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """The device waits meanwhile at the end of a turn, and goes one on when what this gives is called."""
        begun, turns, over = threading.Event(), threading.Semaphore(0), threading.Event()

        def notify(index, update):
            begun.set()
            if not over.is_set():
                turns.acquire()

        [ticket] = self.scheduler.submit("student", [Job(GenerateRequest([1], 100), stream=True)], notify)
        begun.wait()
        try:
            yield turns.release
        finally:
            over.set()
            self.scheduler.cancel("student", [ticket])
            turns.release()


@pytest.fixture(scope="module")
def start(student):
    """`start(queue=64, seconds=600, key=None, names=("student",))` is a Server, closed after the module."""
    with contextlib.ExitStack() as stack:

        def start_(queue=64, seconds=600.0, request_bytes=2**16, key=None, names=("student",)) -> Server:
            mesh = make_mesh(devices=jax.devices()[:1])
            models = {name: ServedModel(name, Engine(student, mesh, ROWS), SLOTS) for name in names}
            engines = {name: model.engine for name, model in models.items()}
            scheduler = Scheduler(engines, ROWS, dict.fromkeys(models, SLOTS), queue)
            scheduler.start()
            stack.callback(scheduler.close)
            bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            http = http_server(make_app(models, scheduler, Limits(request_bytes, seconds), key))
            thread = threading.Thread(target=http.run, kwargs={"sockets": [bound]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, http, "should_exit", True)
            return Server(f"http://127.0.0.1:{bound.getsockname()[1]}", scheduler, http)

        yield start_
