import gzip
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[],: \n\té\u2028😀', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
# No object inside of a row has its keys: after a cut it would be taken for a row.
objects = st.lists(st.dictionaries(st.sampled_from(["row1", "row2"]), json_values, max_size=2), max_size=5)


def items(path, **kwargs):
    return [item for _, item in json_rows.read(path, **kwargs)]


@pytest.fixture(params=[1, 2, 7, 2**20], ids="chunk={}".format)
def chunk(request, monkeypatch):
    """How much is read at once: it must never matter."""
    monkeypatch.setattr(json_rows, "CHUNK", request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_list_and_every_cut_of_it(chunk, folder, values, ascii_only, indent, data):
    raw = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
    (folder / "a.json").write_bytes(raw)
    assert items(folder / "a.json") == values

    cut = data.draw(st.integers(1, len(raw) - 1))
    (folder / "a.json").write_bytes(raw[:cut])
    *whole, rest = items(folder / "a.json")
    assert isinstance(rest, Rejected) and "cut off" in rest.reason
    assert whole == values[: len(whole)]
    # All that closes before the cut is read.
    ends = [len(json.dumps(values[: n + 1], ensure_ascii=ascii_only).encode()) - 1 for n in range(len(values))]
    if indent is None:
        assert len(whole) == sum(end <= cut for end in ends)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects)
def test_lines(chunk, folder, values):
    (folder / "a.jsonl").write_text("".join(map(json_rows.line, values)), encoding="utf-8")
    assert items(folder / "a.jsonl") == values
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(map(json_rows.line, values))
    assert items(folder / "a.jsonl.gz") == values


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["a.json", "a.jsonl", "a.json.gz"]))
def test_no_bytes_break_it(folder, raw, name):
    (folder / name).write_bytes(raw)
    for where, item in json_rows.read(folder / name):
        assert isinstance(item, dict) or json.loads(item.line())["where"] == item.where
        assert where.startswith(str(folder / name))


def test_bad_lines_are_set_aside_with_their_place(tmp_path):
    path = tmp_path / "d.jsonl"
    lines = [b'{"a": 1}', b'{"a": ', b"[1]", b"", b'{"a": "\xff"}', b"[" * 100_000, b'{"a": 2}', b'{"a": 1, "a": 2}']
    path.write_bytes(b"\n".join(lines))
    read = dict(json_rows.read(path))
    assert [where for where in read] == [f"{path}:{n}" for n in (1, 2, 3, 5, 6, 7, 8)]
    assert read[f"{path}:1"] == {"a": 1} and read[f"{path}:7"] == {"a": 2}
    reasons = [read[f"{path}:{n}"].reason for n in (2, 3, 5, 6)]
    assert reasons[0].startswith("not JSON:") and reasons[1:3] == ["not a JSON object", "bytes that are not UTF-8"]
    assert "JSON" in reasons[3]
    assert read[f"{path}:8"].reason == "not readable JSON: a key that stands twice in an object"
    assert read[f"{path}:5"].row == '{"a": "\\xff"}'


def test_an_element_of_a_list_that_cannot_be_used_leaves_the_others(tmp_path):
    path = tmp_path / "d.json"
    path.write_bytes(b'\xef\xbb\xbf[{"a": 1}, {"a": 1, "a": 2}, {"a": "\xff"}, 5, {"a": 3}, 6]  ')
    read = list(json_rows.read(path))
    assert [where for where, _ in read] == [f"{path}[{n}]" for n in range(6)]
    assert [isinstance(item, dict) for _, item in read] == [True, False, False, False, True, False]


@pytest.mark.parametrize("bad", ['{"a" 2}', '{"a": 2', "{'a': 2}", '{"a": "2}', '{"a": 2} {"a": 3}', "]", "{]}"])
def test_a_list_is_read_up_to_its_damage(chunk, tmp_path, bad):
    path = tmp_path / "d.json"
    rest = bad + ', {"a": 4, "é": "é"}, {"a": 5}]'
    path.write_text('[{"a": 1}, ' + rest, encoding="utf-8")
    *good, last = items(path)
    assert good in ([{"a": 1}], [{"a": 1}, {"a": 2}])
    assert rest.endswith(last.row) and '{"a": 4, "é": "é"}, {"a": 5}]' in last.row
    assert last.reason.startswith(("not JSON: ", "the list is cut off", "data after the end"))


@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_strict_reading_ends_at_what_cannot_be_used(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"a": 1}\n{"a": 2, "a": 3}\n' if name == "d.jsonl" else '[{"a": 1}, {"a": 2, "a": 3}]')
    place = f"{path}:2" if name == "d.jsonl" else f"{path}[1]"
    read = json_rows.read(path, strict=True)
    assert next(read)[1] == {"a": 1}
    with pytest.raises(ValueError, match="a key that stands twice") as error:
        next(read)
    assert str(error.value).startswith(place) and "\n" not in str(error.value)
    (tmp_path / "t.txt").write_bytes(b"a\n\n\xff\n")
    with pytest.raises(ValueError, match=r"t\.txt:3: bytes that are not UTF-8"):
        list(json_rows.read_lines(tmp_path / "t.txt", strict=True))


def test_a_row_that_is_nested_too_deep_is_set_aside(tmp_path):
    """One that no other Python, nor pickle, could write again."""
    path = tmp_path / "d.jsonl"
    deep = [
        f'{{"k": {"[" * depth}{"]" * depth}}}' for depth in (json_rows.MAX_DEPTH - 1, json_rows.MAX_DEPTH, 400, 100_000)
    ]
    wide = json.dumps({"k": [{}] * 1000})
    path.write_text("\n".join([*deep, wide]))
    good, *bad, last = items(path)
    assert isinstance(good, dict) and last == json.loads(wide)
    assert [row.reason for row in bad[:2]] == [f"nested more than {json_rows.MAX_DEPTH} deep"] * 2
    assert all(isinstance(row, Rejected) for row in bad)
    path = tmp_path / "d.json"
    path.write_text(f"[{', '.join([*deep, wide])}]")
    rows = items(path)
    assert [isinstance(row, Rejected) for row in rows] == [False, True, True, True, False]
    assert [row.row for row in rows[1:3]] == deep[1:3] and rows[3].row_bytes == len(deep[3])


def test_data_after_a_list_is_reported(tmp_path):
    path = tmp_path / "d.json"
    behind = "data after the end of the list"
    path.write_text('[{"a": 1}]\n{"b": 2}')
    assert [getattr(item, "reason", item) for item in items(path)] == [{"a": 1}, behind]


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.json.gz"])
def test_cut_gz_gives_every_whole_row(tmp_path, name):
    values = [{"a": str(hash((n, "x")))} for n in range(5000)]
    text = json.dumps(values) if "json." in name else "".join(map(json_rows.line, values))
    whole = gzip.compress(text.encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    *read, rest = items(tmp_path / name)
    assert len(read) > 1000 and read == values[: len(read)]
    assert "cut off or damaged" in rest.reason


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.json.gz"])
def test_a_row_of_300_megabytes_is_set_aside_in_bounded_memory(tmp_path, name):
    before, between, after = (b"[", b",", b"]") if "json." in name else (b"", b"\n", b"")
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(before + b'{"a": 1}' + between + b'{"a": "')
        for _ in range(300):
            file.write(b"x" * 10**6)
        file.write(b'"}' + between + b'{"a": 2}' + after)
    tracemalloc.start()
    first, big, last = items(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert peak < 40e6
    row = json.loads(big.line())
    assert row["reason"] == "row of more than 8,388,608 bytes"
    assert row["row_bytes"] == 300 * 10**6 + len('{"a": ""}') and len(row["row"]) == json_rows.MAX_REJECTED_CHARS


def test_lone_surrogates_can_be_written():
    value = {"a": "\ud800é"}
    assert json.loads(json_rows.line(value).encode("utf-8")) == value
    assert json.loads(Rejected("w", None, "r", {"a": "\ud800" * 60_000}).line())["row_bytes"] > 60_000
