import jax
import orbax.checkpoint as ocp
import pytest

from imitation_jax.evaluation.model_sources import named_sources
from imitation_jax.models import checkpoint
from imitation_jax.models.families import llama
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.tokenizers.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three exports, two GGUF files, and what is no model beside them."""
    monkeypatch.chdir(tmp_path)
    for name in ("run1", "run2", "run10"):
        (tmp_path / f"runs/{name}/export").mkdir(parents=True)
        (tmp_path / f"runs/{name}/export/config.json").touch()
    (tmp_path / "runs/run3/export").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    for name in ("b.Q4.gguf", "a.gguf", "odd[1].gguf"):
        (tmp_path / "models" / name).touch()
    return tmp_path


def test_plain_sources_are_as_before():
    given = ["gguf:models/b.Q4.gguf", "hf:x/llama/", "orbax:gs://bucket/run@600", "orbax:r/un@2/x"]
    assert named_sources(given) == dict(zip(given, ["b.Q4", "llama", "run@600", "x"], strict=True))
    assert named_sources(["hf:a", "hf:a"]) == {"hf:a": "a"}
    with pytest.raises(ValueError, match="two models would be filed as 'm'"):
        named_sources(["hf:a/m", "hf:b/m"])
    with pytest.raises(ValueError, match="write hf:DIR"):
        named_sources(["m"])


def test_globs_give_models_in_natural_order_named_from_the_wildcard_on(folder):
    found = {"hf:runs/run1/export": "run1_export", "hf:runs/run2/export": "run2_export"}
    assert named_sources(["hf:runs/*/export"]) == {**found, "hf:runs/run10/export": "run10_export"}
    assert list(named_sources([f"hf:{folder}/runs/run1*/exp*"]).values()) == ["run1_export", "run10_export"]
    expected = {"gguf:models/a.gguf": "a", "gguf:models/b.Q4.gguf": "b.Q4", "gguf:models/odd[1].gguf": "odd_1"}
    assert named_sources(["gguf:models/*.gguf"]) == expected
    # a name with brackets that is there means itself, and one model given twice is one
    assert list(named_sources(["gguf:models/odd[1].gguf", "gguf:models/*"])) == [
        "gguf:models/odd[1].gguf",
        "gguf:models/a.gguf",
        "gguf:models/b.Q4.gguf",
    ]


def test_what_matches_no_model_is_refused(folder):
    for model in ("gguf:models/*.bin", "gguf:nowhere/*", "hf:models/*", "hf:runs/run3/*", "orbax:runs/*", "orbax:r*@*"):
        with pytest.raises(ValueError, match="matches no model") as error:
            named_sources([model])
        assert model in str(error.value)
    with pytest.raises(FileNotFoundError, match="runs/run1/checkpoints: no checkpoint there"):
        named_sources(["orbax:runs/run1@*"])


def test_all_steps_of_runs(folder, tiny_tokenizer):
    model = LoadedModel(llama, llama.PRESETS["tiny"], None, load_tokenizer(tiny_tokenizer), None)
    saved = checkpoint.model_to_json(model)
    for name, steps in (("run2", (5, 10, 100)), ("run10", (7,))):
        with checkpoint.open_manager(f"runs/{name}") as manager:
            for step in steps:
                args = ocp.args.Composite(
                    params=ocp.args.StandardSave({"x": jax.numpy.zeros(2)}), model=ocp.args.JsonSave(saved)
                )
                manager.save(step, args=args)
    at = ["run2@5", "run2@10", "run2@100"]
    assert named_sources(["orbax:runs/run2@*"]) == {f"orbax:runs/{name}": name for name in at}
    assert named_sources(["orbax:runs/*@*"]) == {f"orbax:runs/{name}": name for name in [*at, "run10@7"]}
    assert named_sources(["orbax:runs/*"]) == {"orbax:runs/run2": "run2", "orbax:runs/run10": "run10"}
    assert named_sources(["orbax:runs/*2@10"]) == {"orbax:runs/run2@10": "run2@10"}
