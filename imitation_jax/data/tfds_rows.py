"""Rows of a prepared tfds dataset, as a JSON file would hold them: `tfds:NAME[/CONFIG]:SPLIT`, or `tfds:DIR:SPLIT`."""

import hashlib
import json
import os
import re
from typing import Any

from etils import epath

SPEC = re.compile(r"tfds:(?P<name>.+?):(?P<split>[^:/\[]+(\[[^\]]*\])?)")


def read(spec: str) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, str | int]]:
    """("SPEC[INDEX]", row) of every example, and {"sha256", "rows", "version"}, the hash over the rows as JSON Lines.

    A class label is its name, and None where it is not known (-1).

    Raises:
      FileNotFoundError: no such dataset.
      ValueError: no such split, files that are no ArrayRecord, bytes that are not UTF-8.
    """
    import tensorflow_datasets as tfds  # takes seconds, and most data are files

    from imitation_jax.data import builder

    parts = SPEC.fullmatch(spec)
    if parts is None:
        raise ValueError(f"{spec}: expected tfds:NAME[/CONFIG]:SPLIT or tfds:DIR:SPLIT, such as tfds:piqa:validation")
    split = parts["split"].partition("[")[0]
    rows = []
    with builder.local(_folder(spec, parts["name"]), split) as folder:
        prepared = tfds.builder_from_directory(folder)
        info = prepared.info
        if split not in info.splits:
            raise ValueError(f"{spec}: has no split {split!r}; there are {', '.join(info.splits)}")
        if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            kind = info.file_format.value
            raise ValueError(f"{spec}: its files are {kind}; prepare it again with --file_format=array_record")
        try:
            source = prepared.as_data_source(split=parts["split"])
        except ValueError as error:
            raise ValueError(f"{spec}: {str(error).splitlines()[0]}") from None
        for index, row in builder.examples(source):
            try:
                rows.append((f"{spec}[{index}]", _plain(row, info.features)))
            except UnicodeDecodeError:
                raise ValueError(f"{spec}[{index}]: bytes that are not UTF-8") from None
    # Its files are no fingerprint: prepared twice, the same examples give other bytes.
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for _, row in rows)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return rows, {"sha256": digest, "rows": len(rows), "version": str(prepared.version)}


def _folder(spec: str, name: str) -> epath.Path:
    """The folder of the newest prepared version."""
    elsewhere = "://" in name or name.startswith(("/", ".", "~"))
    root = epath.Path(name if elsewhere else os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    root = root if elsewhere else root / name
    if (root / "dataset_info.json").exists():
        return root
    versions = {
        tuple(map(int, path.parent.name.split("."))): path.parent
        for path in root.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    }
    if versions:
        return versions[max(versions)]
    if configs := sorted({path.parent.parent.name for path in root.glob("*/*/dataset_info.json")}):
        raise ValueError(f"{spec}: {root} holds several configs; add one of them to the name: {', '.join(configs)}")
    how = "name a folder with dataset_info.json"
    if not elsewhere:
        how = f"run `tfds build {name} --file_format=array_record`, or set TFDS_DATA_DIR to where it is"
    raise FileNotFoundError(f"{spec}: no prepared dataset in {root}; {how}")


def _plain(value: Any, feature: Any) -> Any:
    """What a JSON row would hold in place of a tfds example's value."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: _plain(value[key], feature[key]) for key in feature}
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict):
            return {key: [_plain(each, inner[key]) for each in value[key]] for key in inner}
        return [_plain(each, inner) for each in value]
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value)) if value >= 0 else None
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if hasattr(value, "tolist") else value
