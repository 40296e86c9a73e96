"""Files and folders that appear whole or not at all, locks between processes, and where the caches are."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# filelock and etils are imported where they are used: the programs run on images that have neither.


def cache_dir() -> Path:
    """Where compiled programs and tokenised data are kept: $IMITATION_CACHE, else ~/.cache/imitation_jax."""
    return Path(os.environ.get("IMITATION_CACHE", "~/.cache/imitation_jax")).expanduser()


def existing(path: str) -> str:
    """The path of a file, local or a bucket's, with `~` expanded.

    Raises:
      FileNotFoundError: no file is there, or the path is empty.
    """
    from etils import epath

    file = epath.Path(path).expanduser() if path else None
    if file is None or not file.exists() or file.is_dir():
        raise FileNotFoundError(f"{path or '(no path given)'}: no such file")
    return str(file)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path beside the local `path`; the file or folder that is made there becomes `path` at the end.

    Where something is raised it is removed instead, and `path` stays as it was. A folder cannot replace a full one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Whole or not at all, on a local disk; a bucket's writes are whole by themselves. Makes the folder too."""
    if "://" in str(path):
        from etils import epath

        epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
        epath.Path(path).write_bytes(content)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


class Lock:
    """Holds a lock file against all other processes of this machine, from now until `release` or this process's end.

    The file is the lock's own, made here and removed with its release; the system frees it however the process ends.
    """

    def __init__(self, path: str | os.PathLike, busy: str = ""):
        """Takes the lock.

        Args:
          path: of the lock file, by custom what it guards with ".lock" behind it.
          busy: what to say where another process holds it; "" waits for that one.

        Raises:
          BlockingIOError: `busy`.
          OSError: the file cannot be made.
        """
        import filelock

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(path, thread_local=False)
        try:
            self._lock.acquire(blocking=not busy)
        except filelock.Timeout:
            raise BlockingIOError(busy) from None

    def release(self) -> None:
        """Lets others have it."""
        if self._lock.is_locked:
            # Whoever waits for this file sees that it is gone, and makes a new one.
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_) -> None:
        self.release()


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
        lock = Lock(f"{part}.lock", "another run is writing it; wait, or give another folder")
    except BlockingIOError as error:
        raise ValueError(f"--output={output}: {error}") from None
    except OSError as error:
        raise OSError(f"--output={output} cannot be written ({error}): give another folder") from error
    with lock:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
            os.rename(part, folder)
        finally:
            with contextlib.suppress(OSError):
                part.rmdir()  # if nothing was written
