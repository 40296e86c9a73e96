import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues


def talk(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


U, A, S = ("user", "q"), ("assistant", "a"), ("system", "s")


@pytest.mark.parametrize("turns", [(U, A), (S, U, A), (U, A, U), (U, A, U, A)])
def test_good_dialogues_pass(turns):
    dialogues.check(talk(*turns))


@pytest.mark.parametrize(
    ("dialogue", "reason"),
    [
        ({}, "no messages"),
        ({"messages": []}, "no messages"),
        ({"messages": "hello"}, "no messages"),
        ({"messages": ["hello"]}, "a message that is not an object"),
        ({"messages": [{"content": "q"}]}, "a message without a role"),
        (talk(U, ("tool", "x")), 'unknown role "tool"'),
        (talk(("x" * 10**6, "q")), f'unknown role "{"x" * 40}"'),
        (talk(U, ("assistant", None)), "content that is not text"),
        (talk(U, ("assistant", [{"type": "text", "text": "a"}])), "content that is not text"),
        (talk(U, ("assistant", " \n")), "empty assistant turn"),
        (talk(U, ("assistant", "\ud800")), "content with half a surrogate pair, which UTF-8 cannot hold"),
        (talk(U, U, A), "two user turns in a row"),
        (talk(U, A, A), "two assistant turns in a row"),
        (talk(U, S, A), "a system message that is not the first"),
        (talk(S, S, U, A), "a system message that is not the first"),
        (talk(S, U), "no assistant turn"),
        (talk(S), "no assistant turn"),
        (talk(A, U), "starts with an assistant turn"),
    ],
)
def test_bad_dialogues_are_refused_in_one_line(dialogue, reason):
    with pytest.raises(ValueError) as error:
        dialogues.check(dialogue)
    assert str(error.value) == reason


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "messages"]),
        st.recursive(
            st.none() | st.integers() | st.sampled_from(["user", "assistant", "system", ""]),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2)
            ),
        ),
    )
)
def test_check_says_no_but_never_breaks(dialogue):
    try:
        dialogues.check(dialogue)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert [m["role"] for m in dialogue["messages"] if m["role"] != "system"][:2] == ["user", "assistant"]


def test_rows_that_all_have_one_id_get_their_own_in_order_and_in_time():
    seen: set[str] = set()
    made = [dialogues.with_own_id({"id": "x"}, seen) for _ in range(30_000)]  # a search from 2 on would take minutes
    assert [item["id"] for item in made] == ["x", *(f"x#{number}" for number in range(2, 30_001))]
    assert made[-1]["original_id"] == "x"
    again = dialogues.with_own_id({"id": "x#2", "original_id": "older"}, seen)
    assert again == {"id": "x#2#2", "original_id": "older"}


def test_reading_keeps_further_keys_and_fills_what_other_trainers_leave_out(tmp_path):
    path = tmp_path / "d.jsonl"
    full = {"id": "x", "source": "s", "score": [1, {"k": None}], **talk(U, A)}
    full["messages"][1]["weight"] = 0
    path.write_text(json_rows.line(full) + json_rows.line(talk(U, A)) + json_rows.line({"id": "bad", **talk(U)}))
    (_, first), (_, second), (where, third) = dialogues.read(path)
    assert first == full
    assert second == {"id": "d.jsonl:2", "source": "d.jsonl", **talk(U, A)}
    assert isinstance(third, Rejected) and (third.id, third.where, where) == ("bad", f"{path}:3", f"{path}:3")
