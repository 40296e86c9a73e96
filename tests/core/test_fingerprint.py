import json

import pytest

from imitation_jax.core.fingerprint import COMPARABLE, LABEL, MODEL, PLACE, RESULT, Key, Keys, digest, flat

KEYS = Keys(
    seed=Key(0, "order of the data"),
    mesh=Key("fsdp=-1", "axes of the device mesh", PLACE),
    name=Key("", "what the run is called", LABEL),
    model=Keys(init=Key("", "weights to start from", MODEL), dropout=Key(0.0, "share of activations")),
    flags=Key({}, "of the launcher", PLACE),
)


def test_a_config_has_the_defaults_and_each_config_its_own_groups():
    config = KEYS.config(seed=3)
    config.flags.nodes = 4
    assert config.to_dict() == {
        "seed": 3,
        "mesh": "fsdp=-1",
        "name": "",
        "model": {"init": "", "dropout": 0.0},
        "flags": {"nodes": 4},
    }
    assert KEYS.config().flags.to_dict() == {}
    with pytest.raises(KeyError):
        KEYS.config(sede=3)


def test_keys_are_listed_as_the_flags_write_them():
    assert [name for name, _ in KEYS.items()] == ["seed", "mesh", "name", "model.init", "model.dropout", "flags"]


@pytest.mark.parametrize(
    "name, effect",
    [("seed", RESULT), ("mesh", PLACE), ("model.init", MODEL), ("model.dropout", RESULT), ("flags.nodes", PLACE)],
)
def test_what_a_key_changes(name, effect):
    assert KEYS.effect(name) == effect


@pytest.mark.parametrize("name", ["sede", "model.unknown", "mesh_of_another_version"])
def test_a_key_that_is_not_declared_counts(name):
    assert KEYS.effect(name) == RESULT
    assert KEYS.differing({}, {name: 1}) == {name: (None, 1)}


def test_what_differs():
    there, here = KEYS.config(), KEYS.config(seed=1, mesh="data=2", name="other")
    here.model.init = "hf:a"
    assert KEYS.differing(there, here) == {"model.init": ("", "hf:a"), "seed": (0, 1)}
    assert KEYS.differing(there, here, COMPARABLE) == {"seed": (0, 1)}


def test_an_earlier_value_is_the_present_one_of_the_same_meaning():
    keys = Keys(model=Keys(template=Key("model", "chat template", MODEL, {"lineage": "plain"})))
    there, here = ({"model": {"template": name}} for name in ("lineage", "plain"))
    assert not keys.differing(there, here) and keys.fingerprint(there) == keys.fingerprint(here)


def test_a_setting_from_before_its_key_has_the_default():
    assert not KEYS.differing({"seed": 0}, KEYS.config())
    assert KEYS.differing({"seed": 0}, {"seed": 0, "model": {"dropout": 0.1}}) == {"model.dropout": (0.0, 0.1)}


def test_a_fingerprint_is_of_what_changes_numbers_alone_and_survives_json():
    config = KEYS.config()
    same = KEYS.config(mesh="data=2", name="other")
    assert KEYS.fingerprint(config) == KEYS.fingerprint(same) == KEYS.fingerprint(json.loads(config.to_json()))
    assert KEYS.fingerprint(config) != KEYS.fingerprint(KEYS.config(seed=1))


def test_more_keys_join_groups_and_win():
    both = KEYS | Keys(seed=Key(7, "another"), model=Keys(size=Key("", "preset", MODEL)))
    assert both.config().seed == 7 and both.effect("model.size") == MODEL and both.effect("model.init") == MODEL
    assert "size" not in KEYS.config().model


def test_flat_and_digest():
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": "x"})) == {"a.b": 1, "d": "x"}
    assert digest({"a": 1, "b": "ü"}) == digest({"b": "ü", "a": 1}) != digest({"a": 1, "b": "u"})
