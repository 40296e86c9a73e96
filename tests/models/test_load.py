import jax.numpy as jnp
import pytest

from imitation_jax.models.load import load_model, save_model


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
    assert "USER: w5" in load_model(f"hf:{folder}", template="lineage").template.render(messages)


def test_a_home_folder_and_a_trailing_slash(hf_folder, monkeypatch):
    folder = hf_folder("multi_head")
    monkeypatch.setenv("HOME", str(folder.parent))
    model = load_model("hf:~/multi_head/", param_dtype=jnp.bfloat16)
    assert model.name == "multi_head" and model.params["embed"].dtype == jnp.bfloat16
