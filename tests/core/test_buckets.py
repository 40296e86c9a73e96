"""Buckets that flags and config keys name are looked at once, before the work begins."""

import threading

import pytest

from imitation_jax.core import buckets


@pytest.mark.parametrize(
    "answer, error, message",
    [
        (ImportError("gcsfs"), OSError, "^gs://mine: gs:// paths need gcsfs; pip install"),
        (PermissionError("denied"), OSError, r"^gs://mine: cannot be reached \(denied\); check its name"),
        (None, TimeoutError, "^gs://mine: no answer within 0.1 s; check the network"),
    ],
)
def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch, answer, error, message):
    asked = []

    class Path:
        def __init__(self, bucket):
            asked.append(bucket)

        def exists(self):
            if answer is None:
                threading.Event().wait(5)
            raise answer or AssertionError

    monkeypatch.setattr(buckets.epath, "Path", Path)
    monkeypatch.setattr(buckets, "SECONDS", 9 if answer else 0.1)
    with pytest.raises(error, match=message):
        buckets.check_reachable(["/tmp/x", "a,gs://mine/run/1,gs://mine/run/2"])
    assert asked == ["gs://mine"]


def test_a_bucket_that_answers_is_no_error(bucket):
    buckets.check_reachable(["gs://mine/run", "nothing"])
