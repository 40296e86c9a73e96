"""The token cache: every dialogue rendered and tokenised once, then read as flat memory-mapped arrays.

A row without `messages` whose `text` is a string is plain text, as for pre-training: it begins as the tokenizer begins
a text, ends with the EOS token, and every token of it bears loss. Wherever dialogues are counted it counts as one.

A cache folder is named by what decides its content (dialogues, tokenizer, template) and appears whole or not at all:
it is filled under a temporary name while a lock is held, so neither kill -9 nor a second process can spoil it.
It holds ids.bin (uint32), mask.bin (uint8, 1 = loss-bearing), offsets.bin (int64, one more than dialogues),
rejected.jsonl, and meta.json with the counts.
"""

import collections
import concurrent.futures
import hashlib
import itertools
import json
import multiprocessing
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from etils import epath

from imitation_jax.core import files, json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.core.progress import progress
from imitation_jax.data import builder, dialogues

FORMAT = 2  # goes up when the same inputs would give other arrays
DIALOGUES_A_TASK = 32
THREADS = 4  # more would wait for the interpreter's lock, which a fifth of the work holds

_worker = threading.local()  # what a worker tokenises with, be it a process or a thread


class Tokens:
    """A finished cache folder, memory-mapped.

    Attributes:
      ids: (tokens,) uint32, all dialogues one after the other.
      mask: (tokens,) uint8, 1 where the token is loss-bearing.
      offsets: (dialogues + 1,) int64, where each dialogue begins in `ids`.
      meta: dialogues, texts (those of them that are plain text), tokens, loss_tokens, rejected, and reasons (reason ->
        count).

    Raises:
      ValueError: the files do not fit each other.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        sizes = {"ids.bin": 4 * self.meta["tokens"], "mask.bin": self.meta["tokens"]}
        sizes["offsets.bin"] = 8 * (self.meta["dialogues"] + 1)
        for name, size in sizes.items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} is damaged (it should have {size:,} bytes); delete {folder}")
        self.ids = np.memmap(folder / "ids.bin", np.uint32, "r")
        self.mask = np.memmap(folder / "mask.bin", np.uint8, "r")
        self.offsets = np.fromfile(folder / "offsets.bin", np.int64)

    def __reduce__(self):
        return Tokens, (self.folder,)  # a data worker maps the files itself

    @property
    def lengths(self) -> np.ndarray:
        """(dialogues,) int64 tokens of each dialogue."""
        return np.diff(self.offsets)


def load(path: str, tokenizer, template, cache_dir: str, workers: int = 0) -> Tokens:
    """The tokens of the dialogues at `path`, from the cache or made now.

    Args:
      path: a file of dialogues or texts (.jsonl, .json, gzipped or not), a folder that `prepare` wrote, or a tfds
        dataset folder; local or in a bucket.
      tokenizer, template: give `fingerprint`; `template.tokenize(messages)` gives (ids, mask) of a dialogue,
        `tokenizer.encode_batch` and `eos_id` the ids of a text.
      cache_dir: local folder that holds one folder for each combination of dialogues, tokenizer and template.
      workers: processes that tokenise; 0 does it on threads.

    Raises:
      FileNotFoundError: nothing at `path`.
      ValueError: no dialogue is left.
    """
    source = _source(path)
    key = [str(FORMAT), _content(source), tokenizer.fingerprint, template.fingerprint]
    folder = Path(cache_dir) / hashlib.sha256("\n".join(key).encode()).hexdigest()[:32]
    if not (folder / "meta.json").exists():
        with files.Lock(f"{folder}.lock"):
            if not (folder / "meta.json").exists():
                for left in folder.parent.glob(f"{folder.name}.*.tmp"):  # by a run that was killed
                    shutil.rmtree(left)
                with files.replacing(folder) as part:
                    part.mkdir()
                    _fill(part, source, tokenizer, template, workers)
    meta = json.loads((folder / "meta.json").read_text())
    if not meta["dialogues"]:
        raise ValueError(_nothing_left(path, meta, folder))
    return Tokens(folder)


def read(path: str) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) of a dialogue file, a folder that `prepare` wrote or a tfds folder.

    Raises:
      FileNotFoundError: nothing at `path`.
    """
    return _read(_source(path))


def _read(source: epath.Path, scratch: Path | None = None) -> Iterator[tuple[str, dict | Rejected]]:
    """See `read`; a bucket's tfds folder is copied into `scratch`, else the temporary folder, for the time."""
    return builder.read(source, scratch) if source.is_dir() else dialogues.read(source)


def _source(path: str) -> epath.Path:
    """The dialogue file or the tfds folder that `path` means."""
    given = epath.Path(path)
    if not given.exists():
        raise FileNotFoundError(f"no data at {path}: give a dialogue file, or a folder that prepare wrote")
    if not given.is_dir():
        return given
    folder = builder.find(given)
    if folder is None:
        raise FileNotFoundError(f"no tfds dataset in {path} (no dataset_info.json): give a folder that prepare wrote")
    return folder


def _content(source: epath.Path) -> str:
    """Hash of all dialogue bytes of a file or a tfds folder."""
    digest = hashlib.sha256()
    for file in builder.files(source):
        with file.open("rb") as opened:
            while chunk := opened.read(json_rows.CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _fill(folder: Path, source: epath.Path, tokenizer, template, workers: int) -> None:
    offset, offsets, loss_tokens, texts = 0, [0], 0, 0
    reasons = collections.Counter()
    read = progress(map(_or_text, _read(source, folder)), desc="tokenising", unit="dialogue")
    done = _tokenised(read, tokenizer, template, workers)
    with (
        open(folder / "ids.bin", "wb") as ids_file,
        open(folder / "mask.bin", "wb") as mask_file,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as rejected_file,
    ):
        for item in done:
            if isinstance(item, Rejected):
                reasons[item.reason] += 1
                rejected_file.write(item.line())
                continue
            ids, mask, is_text = item
            texts += is_text
            ids_file.write(ids.tobytes())
            mask_file.write(mask.tobytes())
            offset += len(ids)
            offsets.append(offset)
            loss_tokens += int(mask[1:].sum())
    np.array(offsets, np.int64).tofile(folder / "offsets.bin")
    meta = {"dialogues": len(offsets) - 1, "texts": texts, "tokens": offset, "loss_tokens": loss_tokens}
    meta |= {"rejected": reasons.total(), "reasons": dict(reasons.most_common())}
    (folder / "meta.json").write_text(json.dumps(meta, indent=2))


def _or_text(item: tuple[str, dict | Rejected]) -> tuple[str, dict | Rejected]:
    """Takes back what was set aside as a dialogue without messages if it is plain text."""
    where, row = item
    if isinstance(row, Rejected) and isinstance(row.row, dict) and "messages" not in row.row:
        if isinstance(row.row.get("text"), str):
            return where, row.row
    return item


def _tokenised(read: Iterable, tokenizer, template, workers: int) -> Iterator:
    """(ids uint32, mask uint8, whether it is plain text) or Rejected for each item of `read`, in order."""
    tasks = iter(lambda: list(itertools.islice(read, DIALOGUES_A_TASK)), [])
    start = {"initializer": _start_worker, "initargs": (tokenizer, template)}
    if workers:
        context = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, **start)
    else:
        pool = concurrent.futures.ThreadPoolExecutor(THREADS, **start)
    # Few tasks wait at a time: a pool's own map would first read the whole dataset into memory.
    waiting = collections.deque()
    with pool:
        for task in tasks:
            waiting.append(pool.submit(_tokenise, task))
            if len(waiting) > 3 * (workers or THREADS):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _start_worker(tokenizer, template) -> None:
    _worker.tokenizer, _worker.template = tokenizer, template


def _tokenise(task: list) -> list:
    tokenizer, template = _worker.tokenizer, _worker.template
    return [row if isinstance(row, Rejected) else _one(where, row, tokenizer, template) for where, row in task]


def _one(where: str, row: dict, tokenizer, template) -> tuple[np.ndarray, np.ndarray, bool] | Rejected:
    is_text = "messages" not in row
    try:
        ids, mask = _text_ids(row["text"], tokenizer) if is_text else template.tokenize(row["messages"])
    except Exception as error:  # noqa: BLE001 a template is a program that the user wrote: it may raise anything
        what = "the tokenizer" if is_text else "the chat template"
        reason = f"{what} fails: {(str(error) or type(error).__name__).splitlines()[0]}"
        return Rejected(where, row.get("id"), reason, row)
    if not any(mask[1:]):
        return Rejected(where, row.get("id"), "no loss-bearing token", row)
    return np.array(ids, np.uint32), np.array(mask, np.uint8), is_text


def _text_ids(text: str, tokenizer) -> tuple[list[int], list[int]]:
    if not text.strip():
        return [], []
    text.encode("utf-8")  # says better than the tokenizer what is wrong with half a surrogate pair
    (ids,) = tokenizer.encode_batch([text], add_special_tokens=True)  # other threads may work meanwhile
    if tokenizer.eos_id is not None and ids[-1:] != [tokenizer.eos_id]:
        ids.append(tokenizer.eos_id)
    return ids, [1] * len(ids)


def _nothing_left(path: str, meta: dict, folder: Path) -> str:
    if not meta["rejected"]:
        return f"no dialogue in {path}: it is empty"
    reason, count = next(iter(meta["reasons"].items()))
    return (
        f"no dialogue left of {path}: all {meta['rejected']} were rejected, {count} of them because of: {reason} "
        f"(see {folder / 'rejected.jsonl'})"
    )
