"""Dialogues as a tfds dataset in ArrayRecord files, written and read without TensorFlow.

One feature, `dialogue`, holds the dialogue's JSON: it keeps keys that no schema knows, and one decode gives it back.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues

READ_AT_ONCE = 256


class Dialogues(tfds.core.GeneratorBasedBuilder):
    """Builder of one `train` split that keeps the dialogues' order.

    Args:
      source: called for the dialogues when the dataset is prepared.
      **kwargs: `data_dir` above all; see `tfds.core.DatasetBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded; left to itself tfds looks for checksums with importlib_resources, which it lacks.
    url_infos = None

    def __init__(self, *, source: Callable[[], Iterable[dict]], **kwargs):
        self._source = source
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Dialogues, each as JSON: id, source, messages and whatever else its row held.",
            features=tfds.features.FeaturesDict({"dialogue": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index, dialogue in enumerate(self._source()):
            yield index, {"dialogue": json.dumps(dialogue)}


def build(source: Callable[[], Iterable[dict]], data_dir: str, shards: int = 0) -> None:
    """Writes `data_dir`/dialogues/1.0.0. The same dialogues give the same bytes.

    Args:
      source: gives the dialogues.
      data_dir: local folder.
      shards: files that share the dialogues, in order; 0 takes as many as tfds thinks right for their size.
    """
    tfds.disable_progress_bar()  # its bars and its words about downloads would mislead
    with contextlib.redirect_stdout(io.StringIO()):
        Dialogues(source=source, data_dir=str(data_dir)).download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=shards or None)
        )
    epath.Path(data_dir, "downloads").rmtree()


def find(path: str) -> epath.Path | None:
    """The tfds folder that `path` is or holds (`prepare` writes tfds/dialogues/1.0.0), or None."""
    path = epath.Path(path)
    folders = [
        file.parent
        for pattern in ("dataset_info.json", "*/*/dataset_info.json", "tfds/*/*/dataset_info.json")
        for file in sorted(path.glob(pattern))
    ]
    if len(folders) > 1:
        raise ValueError(f"{path} holds {len(folders)} datasets; name one of them: {', '.join(map(str, folders))}")
    return folders[0] if folders else None


def files(path: epath.Path) -> list[epath.Path]:
    """What holds the rows of a tfds folder, in order; a file holds its own."""
    return sorted(path.glob("*.array_record*")) if path.is_dir() else [path]


@contextlib.contextmanager
def local(folder: epath.Path, split: str = "train", scratch: str | None = None) -> Iterator[epath.Path]:
    """Gives the dataset's folder; a bucket's is copied for the time, as ArrayRecord opens local files only.

    Args:
      split: whose files are copied.
      scratch: where to, else the temporary folder.
    """
    if "://" not in str(folder):
        yield epath.Path(folder)
        return
    with tempfile.TemporaryDirectory(dir=scratch) as copy:
        for file in folder.iterdir():
            if "array_record" not in file.name or f"-{split}." in file.name:
                file.copy(epath.Path(copy) / file.name)
        yield epath.Path(copy)


def examples(source) -> Iterator[tuple[int, Any]]:
    """(index, example) of a tfds data source, in order."""
    for begin in range(0, len(source), READ_AT_ONCE):
        yield from enumerate(source.__getitems__(range(begin, min(begin + READ_AT_ONCE, len(source)))), begin)


def read(folder: epath.Path, scratch: str | None = None) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for the `train` split of a dataset that `build` wrote, in order."""
    with local(folder, scratch=scratch) as here:
        data = tfds.builder_from_directory(here).as_data_source(split="train")
        if "dialogue" not in data.dataset_info.features:
            raise ValueError(f"{folder} is not a dialogue dataset: it has no feature `dialogue`; write it with prepare")
        for index, row in examples(data):
            where = f"{folder}[{index}]"
            yield where, dialogues.accepted(where, json.loads(row["dialogue"]))
