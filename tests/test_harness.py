"""The lm-eval plug-in: what it encodes, cuts, stops and keeps; and item by item what lm-eval's own back end answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imitation_jax.inference.requests import ScoreRequest
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, save_model
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

ROWS = {"arc_local": 24, "piqa_local": 16, "lambada_local": 16}
NQ = 12
TEXT = "the river begins high in the mountains where snow melts slowly every spring and a small stream finds its way"


def asks(*arguments: tuple) -> list[SimpleNamespace]:
    """Requests as lm-eval hands them over."""
    return [SimpleNamespace(args=each) for each in arguments]


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval", reason="needs imitation_jax[lm-eval]")


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer, tmp_path_factory) -> str:
    """A Hugging Face folder of random weights, strong enough that next tokens differ clearly."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    config = llama.LlamaConfig(tokenizer.vocab_size, 64, 172, 3, 8, 4, 8, 128)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        drawn = np.ones(leaf.shape) if "norm" in str(path[-1]) else rng.normal(0, 0.2, leaf.shape)
        return jax.numpy.asarray(drawn, leaf.dtype)

    params = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda: decoder.init(config, jax.random.key(0))))
    folder = tmp_path_factory.mktemp("tiny")
    save_model(LoadedModel(llama, config, params, tokenizer, load_template("model", tokenizer)), f"hf:{folder}")
    return str(folder)


@pytest.fixture(scope="module")
def make(lm_eval, tiny, tmp_path_factory):
    """`make(max_length=32)` is the plug-in on the tiny model."""
    from imitation_jax.evaluation.lm_eval_model import ImitationJax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMITATION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield lambda **options: ImitationJax(f"hf:{tiny}", **options)


@pytest.fixture(scope="module")
def lm(make):
    return make()


def test_registered_under_its_name_beside_lm_evals_own(lm):
    from lm_eval.api.registry import get_model

    assert get_model("imitation_jax") is type(lm)
    assert get_model("dummy").__module__.startswith("lm_eval.")


def test_pairs_are_encoded_together_and_cut_where_the_context_ends(lm):
    """White space that ends a context belongs to the continuation; an empty context is the prefix token."""
    encode, prefix = lm.engine.tokenizer.encode, [lm.prefix_token_id]
    pairs = [("the river", " begins"), ("the river ", "begins"), ("the river:\n\n ", "high"), ("", "snow melts")]
    stripped = ["the river", "the river", "the river:", ""]
    contexts = [encode(text) for text in stripped[:3]]
    rests = [encode("the river begins")[len(contexts[0]) :]] * 2 + [encode("the river:\n\n high")[len(contexts[2]) :]]
    expected = [ScoreRequest(*pair) for pair in zip(contexts, rests, strict=True)]
    expected.append(ScoreRequest(prefix, encode("snow melts")))
    found = lm.loglikelihood(asks(*pairs), disable_tqdm=True)
    for answer, score in zip(found, lm.engine.score(expected), strict=True):
        assert answer == (pytest.approx(score.logprob, abs=1e-5), score.greedy)
    assert found[0] == found[1]


def test_long_contexts_are_cut_from_the_left(make, lm):
    short = make(max_length=16)
    ids = lm.engine.tokenizer.encode(TEXT + " down")
    rest = ids[len(lm.engine.tokenizer.encode(TEXT)) :]
    # The last token is not fed, so 17 fit.
    [expected] = lm.engine.score([ScoreRequest(ids[-17 : -len(rest)], rest)])
    [(logprob, _)] = short.loglikelihood(asks((TEXT, " down")), disable_tqdm=True)
    assert logprob == pytest.approx(expected.logprob, abs=1e-5)
    [whole] = lm.loglikelihood(asks((TEXT, " down")), disable_tqdm=True)
    assert abs(whole[0] - logprob) > 1e-3
    with pytest.raises(ValueError, match="continuation of .* does not fit max_length=16"):
        short.loglikelihood(asks(("a", " " + TEXT)), disable_tqdm=True)


def test_rolling_windows_predict_every_token_once(make, lm):
    short = make(max_length=16)
    ids = lm.engine.tokenizer.encode(TEXT)
    windows = [ScoreRequest([lm.prefix_token_id], ids[:16])]
    windows += [ScoreRequest([ids[start - 1]], ids[start : start + 16]) for start in range(16, len(ids) - 15, 16)]
    rest = len(ids) % 16
    assert rest > 1
    windows.append(ScoreRequest(ids[-17:-rest], ids[-rest:]))  # the last window keeps its full length
    expected = sum(score.logprob for score in lm.engine.score(windows))
    found = short.loglikelihood_rolling(asks((TEXT,), ("",), ("snow",)), disable_tqdm=True)
    assert found[0] == pytest.approx(expected, abs=1e-4) and found[1] == 0.0 and found[2] < 0


def test_generation_stops_where_it_is_told(lm):
    settings = {"until": [], "max_gen_toks": 12}
    [free, short] = lm.generate_until(asks((TEXT, settings), (TEXT, {"max_new_tokens": 4})), disable_tqdm=True)
    assert free.startswith(short) and len(short) < len(free)
    mark = free[len(free) // 2 :][:2]
    [cut] = lm.generate_until(asks((TEXT, settings | {"until": mark, "do_sample": False})), disable_tqdm=True)
    assert cut == free[: free.index(mark)]


def test_sampling_is_drawn_anew_for_repeats_and_the_same_for_a_seed(lm):
    settings = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "max_gen_toks": 12}

    def draw() -> list[str]:
        np.random.seed(1234)
        return lm.generate_until(asks(*[(TEXT, settings)] * 3), disable_tqdm=True)

    first = draw()
    assert len(set(first)) == 3 and draw() == first


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_beams": 10}, "num_beams=10 is not supported; there are until, max_gen_toks"),
        ({"do_sample": True}, "do_sample needs a temperature above 0"),
        ({"max_gen_toks": 128}, "max_gen_toks=128: must be less than 128"),
    ],
)
def test_settings_that_the_engine_lacks_are_refused(lm, settings, message):
    with pytest.raises(ValueError, match=message):
        lm.generate_until(asks((TEXT, settings)), disable_tqdm=True)


def test_what_was_answered_before_a_crash_is_not_asked_again(lm, tmp_path, monkeypatch):
    from lm_eval.api.model import CachingLM

    pairs = [("the river", f" {word}") for word in list(dict.fromkeys(TEXT.split()))[:8]]
    expected = lm.loglikelihood(asks(*pairs), disable_tqdm=True)
    score, asked = lm.engine.score, []

    def dies(requests, on_result=None):
        score(requests[:5], on_result)
        raise OSError("killed")

    def counts(requests, on_result=None):
        asked.extend(requests)
        return score(requests, on_result)

    monkeypatch.setattr(lm.engine, "score", dies)
    with pytest.raises(OSError, match="killed"):
        CachingLM(lm, str(tmp_path / "cache.db")).loglikelihood(asks(*pairs))
    monkeypatch.setattr(lm.engine, "score", counts)
    assert CachingLM(lm, str(tmp_path / "cache.db")).loglikelihood(asks(*pairs)) == expected
    assert len(asked) == 3


def test_chat_template_is_the_models(lm):
    system, user = {"role": "system", "content": "Be short."}, {"role": "user", "content": "Where?"}
    answer = {"role": "assistant", "content": "In the mountains, "}
    opened = lm.apply_chat_template([system, user])
    assert opened.endswith("<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n")
    # The last turn is left open for the model to go on.
    assert lm.apply_chat_template([system, user, answer], add_generation_prompt=False) == opened + answer["content"]
    assert lm.chat_template(True) == lm.engine.template.source and lm.chat_template(False) is None
    assert "/" not in lm.tokenizer_name


def test_a_template_without_system_messages_gets_none(make, tmp_path):
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ message.role }}]{{ message.content | trim }}<|im_end|>{% endfor %}"
    )
    strict = make(template=str(path))
    dialogue = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where?"}]
    assert strict.apply_chat_template(dialogue) == "[user]Where?<|im_end|>"
    assert strict.apply_chat_template([{"role": "user", "content": "So "}], False) == "[user]So"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 129}, "max_length=129: the model has 128 positions"),
        ({"add_bos_token": True}, "add_bos_token: the tokenizer of .* has no BOS token"),
        ({"dtype": "int8"}, "int8"),
        ({"pretrained": "gpt2"}, "pretrained is not known; there are model, mesh"),
    ],
)
def test_arguments_are_checked(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_without_lm_eval_the_command_says_what_to_install():
    code = """
import runpy, sys

class Missing:
    def find_spec(self, name, *rest):
        if name == "lm_eval":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["harness", "--tasks", "arc_easy"]
runpy.run_module("imitation_jax.harness", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == "error: lm_eval is not installed; pip install 'imitation_jax[lm-eval]'\n"


@pytest.fixture
def benchmarks(monkeypatch):
    """Their programs can be imported."""
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("benchmarks")))


@pytest.mark.slow
def test_the_command_runs_a_task(write, lm_eval, benchmarks, command, tiny, tmp_path):
    from lm_eval_sides import write_tasks

    rows = [{"text": TEXT, "choices": [" down", " up"], "gold": gold} for gold in (0, 1)]
    write(tmp_path / "rows.jsonl", rows)
    task = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    }
    write_tasks(tmp_path / "tasks", {"rivers": task})
    flags = ["--include_path", tmp_path / "tasks", "--tasks", "rivers", "--output_path", tmp_path / "out"]
    done = command("harness", "--model_args", f"model=hf:{tiny}", *flags)
    assert done.returncode == 0, done.stderr
    assert "imitation_jax ({'model': 'hf:" in done.stdout
    [path] = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(path.read_text())["results"]["rivers"]["acc,none"] == 0.5
    done = command("harness", "--model_args", "model=hf:nowhere", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")


@pytest.mark.slow
def test_every_item_is_what_lm_evals_own_back_end_answers(lm_eval, benchmarks, lent, smollm2_gguf, tmp_path):
    """ARC-Easy, PIQA and LAMBADA by log-likelihood, NQ by greedy texts in lm-eval's variant, against `--model hf`."""
    python = os.environ.get("IMITATION_ORACLE_PYTHON")
    if not python:
        pytest.skip("IMITATION_ORACLE_PYTHON names no interpreter with torch, transformers, gguf and lm-eval")
    import evaluate_nq
    import evaluate_zero_shot
    from lm_eval_sides import compare_choices, ours, reference, write_tasks

    data = lent("arc_easy").parent
    tasks = evaluate_zero_shot.tasks_of(data)[0] | evaluate_nq.tasks_of(data)[0]
    write_tasks(tmp_path / "tasks", tasks)
    rows = {task: (0, count) for task, count in ROWS.items()} | {"nq_local": (0, NQ)}
    ask = {"folder": str(tmp_path / "tasks"), "rows": rows, "batch_size": 4, "gguf": str(smollm2_gguf)}
    with reference(python, smollm2_gguf, tmp_path) as ask_reference:
        theirs = ask_reference(ask)["answers"]
    found = ours(ask, tmp_path)["answers"]
    assert found.pop("nq_local") == theirs.pop("nq_local")
    count, largest, different, ties = compare_choices({"reference": theirs, "ours": found})
    assert count == sum(ROWS.values())
    assert largest <= 1e-3 and different == ties
