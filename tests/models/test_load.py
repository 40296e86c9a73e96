import dataclasses
import json
import os
import runpy
from pathlib import Path

import jax.numpy as jnp
import pytest

from imitation_jax.evaluation.engines import EngineKey, Engines
from imitation_jax.evaluation.questions import choose
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models.load import identify, load_model, save_model
from imitation_jax.tokenizers.tokenizer import Tokenizer
from imitation_jax.training import config as training
from imitation_jax.training import initial

CONFIGS = Path(__file__).parents[2] / "configs/eval"


@pytest.mark.parametrize("source", ["", "hf:", "gguf", "safetensors:folder", "somewhere/model", "orbax:"])
def test_a_source_of_no_kind(source, refused):
    with refused(ValueError, repr(source), "write hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]"):
        load_model(source)


@pytest.mark.parametrize("target", ["", "hf:", "gguf:file.gguf", "folder"])
def test_a_target_of_no_kind(target, refused, hf_folder):
    model = load_model(f"hf:{hf_folder('multi_head')}")
    with refused(ValueError, repr(target), "write hf:DIR or orbax:DIR"):
        save_model(model, target)


def test_the_template_comes_with_the_model_or_by_name(hf_folder):
    folder = hf_folder("multi_head")
    messages = [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]
    assert load_model(f"hf:{folder}").template.render(messages) == "user w5 </s> assistant w6 </s> "
    assert "USER: w5" in load_model(f"hf:{folder}", template="plain").template.render(messages)


def test_a_home_folder_and_a_trailing_slash(hf_folder, monkeypatch):
    folder = hf_folder("multi_head")
    monkeypatch.setenv("HOME", str(folder.parent))
    model = load_model("hf:~/multi_head/", param_dtype=jnp.bfloat16)
    assert model.params["embed"].dtype == jnp.bfloat16


def test_a_base_model_without_a_template(hf_folder, tmp_path, one_device):
    """It is converted, scores, and generates up to its EOS."""
    model = load_model(f"hf:{hf_folder('multi_head', template=None)}", one_device)
    assert model.template is None
    save_model(model, f"hf:{tmp_path}/out")
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()).get("chat_template") is None
    again = load_model(f"hf:{tmp_path}/out", one_device)
    assert again.template is None
    engine = Engine(again, one_device)
    [score] = engine.score([ScoreRequest([5, 6], [7, 8])])
    assert score.tokens == 2 and score.logprob < 0
    [written] = engine.generate([GenerateRequest([5, 6], 20, stop_ids=frozenset())])
    last = written.ids[7]
    tokenizer = Tokenizer(again.tokenizer.backend, {"eos_token": again.tokenizer.decode([last])})
    [stopped] = Engine(dataclasses.replace(again, tokenizer=tokenizer), one_device).generate(
        [GenerateRequest([5, 6], 20)]
    )
    assert stopped.finish_reason == "stop" and stopped.ids == written.ids[: written.ids.index(last)]


@pytest.mark.parametrize(("task", "chat"), [("answers", {}), ("facts", {"chat": True})])
def test_asking_in_chat_needs_a_template(task, chat, hf_folder, refused):
    source = f"hf:{hf_folder('multi_head', template=None)}"
    config = runpy.run_path(str(CONFIGS / f"{task}.py"))["get_config"]()
    config.update(chat | {"mesh": "data=8"})
    with refused(ValueError, source, "no chat template", "--config.template=plain", ".jinja"):
        key = EngineKey.of(config)
        assert choose(config)[0].needs_template
        Engines(source, [key], needs_template=task)(key)
    config.template = "plain"
    assert not choose(config)[0].needs_template
    assert Engines(source, [EngineKey.of(config)])(EngineKey.of(config)).template.apart


def test_a_run_needs_a_template(hf_folder, tmp_path, one_device, refused):
    folder = hf_folder("multi_head", template=None)
    config = training.get_config()
    config.model.init, config.model.preset = f"hf:{folder}", ""
    with refused(ValueError, "model.template='model'", folder, "--config.model.template=plain", ".jinja"):
        initial.new_model(config, one_device)
    save_model(load_model(f"hf:{folder}", one_device), f"orbax:{tmp_path}/run")
    with refused(ValueError, tmp_path / "run", "--config.model.template=plain"):
        initial.saved_model(str(tmp_path / "run"), 0)
    config.model.template = "plain"
    assert initial.new_model(config, one_device).template.apart


def test_a_models_identity(hf_folder, tmp_path):
    """Of what is read of it alone: results and a training run may lie in the same folder."""
    folder = hf_folder("multi_head")
    source = f"hf:{folder}"
    before = identify(source)
    assert json.loads(json.dumps(before)) == before
    (folder / "README.md").write_text("a card")
    (folder / "run/eval").mkdir(parents=True)
    (folder / "run/eval/config.json").write_text("{}")
    assert identify(source) == before
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        os.utime(folder / name, ns=(0, 7))
        assert identify(source) != before
        before = identify(source)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert identify(source) != before


def test_a_checkpoints_identity(hf_folder, tmp_path, refused):
    model = load_model(f"hf:{hf_folder('multi_head')}")
    for name in ("a", "b"):
        save_model(model, f"orbax:{tmp_path}/{name}")
    assert identify(f"orbax:{tmp_path}/a") == identify(f"orbax:{tmp_path}/a@0") != identify(f"orbax:{tmp_path}/b")
    with refused(FileNotFoundError, "no step 1"):
        identify(f"orbax:{tmp_path}/a@1")
