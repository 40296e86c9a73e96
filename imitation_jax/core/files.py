"""What a run writes and what appears when it is whole: a folder, a file; and where its caches are."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from etils import epath


def cache_dir() -> Path:
    """Where compiled programs and tokenised data are kept: $IMITATION_CACHE, else ~/.cache/imitation_jax."""
    return Path(os.environ.get("IMITATION_CACHE", "~/.cache/imitation_jax")).expanduser()


@contextlib.contextmanager
def new_folder(output: str) -> Iterator[Path]:
    """Gives `output`.tmp, cleared of what a killed run left; at the end it becomes `output`.

    Where something is raised, what was written stays in `output`.tmp, to be looked at, until the next run.

    Raises:
      ValueError: `output` exists or is in a bucket, or another run is writing it.
      OSError: it cannot be made.
    """
    folder = Path(output)
    if "://" in output:
        raise ValueError(f"--output={output}: give a local folder; copy it to the bucket when it is whole")
    if folder.exists():
        raise ValueError(f"--output={output} exists: delete it, or give another folder")
    part = folder.with_name(folder.name + ".tmp")
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--output={output} cannot be written ({error}): give another folder") from error
    lock = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel gives it back however this process ends
        except BlockingIOError:
            raise ValueError(f"--output={output}: another run is writing it; wait, or give another folder") from None
        for left in part.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield part
        os.rename(part, folder)
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):
            part.rmdir()  # if nothing was written


def write_text(path: epath.Path, text: str) -> None:
    """Whole or not at all, on a local disk; a bucket's writes are whole by themselves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "://" in str(path):
        path.write_text(text)
        return
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
