import pytest
from absl import logging

from imitation_jax.core import progress


@pytest.fixture
def said(monkeypatch):
    """What is logged, with a line due after every item."""
    lines = []
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    return lines


def test_items_pass_unchanged_and_are_counted(said):
    assert list(progress.progress("abc", initial=2, desc="reading", unit="row")) == ["a", "b", "c"]
    assert [line.split(" rows")[0] for line in said] == [f"reading: {n}" for n in ("3/5", "4/5", "5/5", "5")]


def test_work_that_calls_back_is_counted(said):
    with progress.ticks(total=3, initial=1, desc="asking") as tick:
        tick()
        tick()
    assert [line.split(" items")[0] for line in said] == [f"asking: {n}" for n in ("2/3", "3/3", "3")]


def test_work_with_lines_of_its_own_logs_none(said):
    assert list(progress.progress("abc", lines=False)) == ["a", "b", "c"]
    assert not said
