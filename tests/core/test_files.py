import subprocess
import sys

import pytest

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.files import Lock, replacing, write_bytes, write_text

HOLD = """
import sys, time
from imitation_jax.core.files import Lock
with Lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_holds_until_its_process_is_gone(tmp_path):
    path = tmp_path / "folder" / "x.lock"
    other = holder(path, 60)
    with pytest.raises(BlockingIOError, match="^somebody else$"):
        Lock(path, "somebody else")
    other.kill()
    other.wait()
    lock = Lock(path, "somebody else")
    with pytest.raises(BlockingIOError, match="^the same process$"):
        Lock(path, "the same process")
    lock.release()
    lock.release()
    assert not path.exists()


def test_who_waits_gets_the_lock_and_has_it_alone(tmp_path):
    path = tmp_path / "x.lock"
    other = holder(path, 0.5)
    with Lock(path), pytest.raises(BlockingIOError, match="^busy$"):
        Lock(path, "busy")
    assert other.wait() == 0


def test_files_and_folders_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "x.txt"
    write_text(path, "é\n")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_bytes() == "é\n".encode()
    with pytest.raises(KeyError), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise KeyError
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "whole").touch()
    assert {file.name for file in tmp_path.rglob("*")} == {"a", "x.txt", "folder", "whole"}


def test_a_bucket_too(bucket):
    write_bytes("gs://bucket/a/b", b"x")
    assert bucket.cat("gs://bucket/a/b") == b"x"


def test_comma_list():
    assert comma_list(" a, b c,,d ") == ["a", "b c", "d"]
    assert comma_list("") == comma_list(" , ") == []
    assert comma_list(5) == ["5"]
