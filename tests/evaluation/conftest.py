"""A scripted engine for tests of what is asked and how it is judged; the live engine has its own tests."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from imitation_jax.evaluation import engines
from imitation_jax.inference.requests import Generation, Score
from imitation_jax.models.load import LoadedModel
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "eval"


class ScriptedEngine:
    """Answers from a table, with a real tokenizer: no model, so that a test can say what the model would have said.

    `likes` maps how a whole text (context + continuation) ends to its log-likelihood; `writes` maps a piece of the
    prompt to the text that follows. `asked` lists every text that came. `dies_after` raises after so many results.
    """

    def __init__(self, tokenizer, likes=None, writes=None, context=8192, dies_after=None):
        self.tokenizer = tokenizer
        self.template = load_template("model", tokenizer)
        self.config = SimpleNamespace(max_position_embeddings=context)
        self.chosen = {"mesh": "fsdp=1", "memory_gib": 1.0}
        self.likes, self.writes, self.dies_after = likes or {}, writes or {}, dies_after
        self.asked, self.requests = [], []

    def _answer(self, requests, answer, on_result):
        results = []
        for index, request in enumerate(requests):
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise RuntimeError("killed")
            result = answer(request)
            self.requests.append(request)
            results.append(result)
            if on_result:
                on_result(index, result)
        return results

    def score(self, requests, on_result=None):
        def answer(request):
            text = self.tokenizer.decode([*request.context, *request.continuation])
            self.asked.append(text)
            logprob = next((value for piece, value in self.likes.items() if text.endswith(piece)), -10.0)
            return Score(logprob, False, len(request.continuation))

        return self._answer(requests, answer, on_result)

    def generate(self, requests, on_result=None):
        def answer(request):
            prompt = self.tokenizer.decode(request.prompt)
            self.asked.append(prompt)
            text = next((text for piece, text in self.writes.items() if piece in prompt), "")
            cut = min([at for at in (text.find(stop) for stop in request.stop) if at >= 0], default=len(text))
            return Generation(text[:cut], self.tokenizer.encode(text[:cut]), "stop", -1.0)

        return self._answer(requests, answer, on_result)


@pytest.fixture
def scripted(tiny_tokenizer):
    tokenizer = load_tokenizer(tiny_tokenizer)
    return lambda **table: ScriptedEngine(tokenizer, **table)


@pytest.fixture
def config_of():
    """`config_of("mmlu", shots=0)` is configs/eval/mmlu.py with that override."""

    def read(name, variant=None, /, **overrides):
        spec = importlib.util.spec_from_file_location(f"eval_{name}", CONFIGS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
        config.update(overrides)
        return config

    return read


@pytest.fixture
def answer_all():
    """Asks an engine all of a task's items and summarises: (samples in order, summary)."""

    def run(task, engine, config):
        items = task.read(config)
        samples = {}
        task.ask(engine, items, config, lambda sample: samples.__setitem__(sample["id"], sample))
        rows = [samples[item["id"]] for item in items]
        return rows, task.summarise(rows, items, config)

    return run


@pytest.fixture
def with_engine(monkeypatch):
    """Puts a scripted engine in the place of every model, and gives it back; `put.loaded` lists the sources read."""

    def put(engine):
        monkeypatch.setattr(engines, "load_model", load_model)
        monkeypatch.setattr(engines, "load_template", lambda name, tokenizer: name)
        monkeypatch.setattr(engines, "Engine", lambda model, *_, **sizes: put.made.append(model.template) or engine)
        return engine

    def load_model(source, mesh):
        put.loaded.append(source)
        return LoadedModel(None, None, None, None, "model")

    put.loaded, put.made = [], []
    return put
