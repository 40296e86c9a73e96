from imitation_jax.core.text_table import text_table


def test_columns_stand_under_one_another():
    rows = [("task", "model", "value"), ("mmlu", "a model", "0.5"), ("nq", "b", "0.1234")]
    assert text_table(rows, left=2).splitlines() == [
        "task  model     value",
        "mmlu  a model     0.5",
        "nq    b        0.1234",
    ]


def test_texts_are_shown_as_they_are():
    """No markup, no emoji, no folding, no cutting; wide characters take two columns."""
    wide = "x" * 3000
    assert text_table([("[bold]a[/bold]", ":smile:"), ("日本", wide)]).splitlines() == [
        "[bold]a[/bold]" + " " * (2 + 3000 - 7) + ":smile:",
        "日本" + " " * 12 + wide,
    ]
    assert text_table([("name", ""), ("x", "")]) == "name\nx"
    assert text_table([]) == ""
