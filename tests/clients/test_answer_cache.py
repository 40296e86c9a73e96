import subprocess
import sys

import pytest

from imitation_jax.clients.answer_cache import Cache

FILL = """
import os, sys
from imitation_jax.clients.answer_cache import Cache
cache = Cache(sys.argv[1])
for number in range(50):
    cache.put({"n": number}, [number, "é"])
os.kill(os.getpid(), 9)
"""


def test_what_was_put_outlives_a_kill(tmp_path):
    path = tmp_path / "new folder" / "cache.sqlite"
    assert subprocess.run([sys.executable, "-c", FILL, path]).returncode == -9
    cache = Cache(path)
    assert [cache.get({"n": number}) for number in range(51)] == [[number, "é"] for number in range(50)] + [None]


def test_two_openings_share_answers_and_a_later_one_wins(tmp_path):
    one, other = Cache(tmp_path / "c"), Cache(tmp_path / "c")
    one.put({"a": 1, "b": 2}, {"score": 0.5})
    assert other.get({"b": 2, "a": 1}) == {"score": 0.5}
    other.put({"a": 1, "b": 2}, {"score": None})
    assert one.get({"a": 1, "b": 2}) == {"score": None}
    assert one.get({"a": 1, "b": 3}) is None


def test_no_cache_there(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one " * 40)
    with pytest.raises(ValueError, match="text: not a cache of answers"):
        Cache(tmp_path / "text")
    with pytest.raises(OSError, match="cannot be opened as a cache"):
        Cache(tmp_path)
