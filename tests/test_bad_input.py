"""Fifteen kinds of bad input: each one clear line, or a row in rejected.jsonl, and nothing lost."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from test_commands import one_line

from imitation_jax.tokenizers.tokenizer import load_tokenizer

GOOD = 30
HUGE = 300 * 2**20


def dialogue(number, *turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    return json.dumps({"id": f"bad{number}", "source": "test", "messages": messages}).encode()


BAD_ROWS = {
    "not JSON": dialogue(0, ("user", "cut off"), ("assistant", "here"))[:60],
    "no messages": dialogue(1),
    "two user turns in a row": dialogue(2, ("user", "one"), ("user", "two"), ("assistant", "three")),
    'unknown role "teacher"': dialogue(3, ("user", "one"), ("teacher", "two")),
    "bytes that are not UTF-8": dialogue(4, ("user", "caf\xe9"), ("assistant", "x")).replace(b"\\u00e9", b"\xe9"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, write_dialogues):
    """Bad rows between good ones, a turn of 300 MB the last of them."""
    path = write_dialogues(tmp_path_factory.mktemp("rows") / "mixed.jsonl", GOOD)
    good = path.read_bytes().splitlines()
    with open(path, "wb") as file:
        for number, row in enumerate(good):
            file.write(row + b"\n")
            if number < len(BAD_ROWS):
                file.write(list(BAD_ROWS.values())[number] + b"\n")
        start, end = dialogue(5, ("user", "one"), ("assistant", "HUGE")).split(b"HUGE")
        file.write(start)
        for _ in range(HUGE // 2**20):
            file.write(b"many words " * (2**20 // 11) + b"a few ")
        file.write(end + b"\n")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def run(command, tiny_config, write_dialogues, tmp_path_factory):
    """`run(workdir, *flags)` trains a tiny model; `run.data` is a good dataset, `run.workdir` four whole steps."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_dialogues(folder / "good.jsonl", GOOD)

    def train(workdir, *flags, data=data, **options):
        fixed = ["--config.epochs=9", "--config.checkpoint.every=2", f"--config.data.path={data}"]
        return command("train", f"--config={tiny_config}", *fixed, f"--workdir={workdir}", *flags, **options)

    train.workdir, train.data = folder / "run", data
    result = train(train.workdir, "--config.steps=4")
    assert result.returncode == 0, result.stderr
    return train


def set_aside(path: Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["reason"]: row for row in rows}


def check_rejected(rejected: dict[str, dict], path: Path) -> None:
    for number, (reason, raw) in enumerate(BAD_ROWS.items()):
        (row,) = (row for given, row in rejected.items() if given.startswith(reason))
        assert row["where"] == f"{path}:{2 * number + 2}"
        kept = row["row"] if isinstance(row["row"], str) else json.dumps(row["row"])
        assert kept.encode() == raw or f"bad{number}" in kept  # the row itself, or what could be read of it
    (huge,) = (row for given, row in rejected.items() if given.startswith("row of more than"))
    assert huge["row_bytes"] > HUGE and "bad5" in huge["row"] and len(huge["row"]) <= 50_000


# ----------------------------------------------------------------------------------------------------------------------
# Rows
# ----------------------------------------------------------------------------------------------------------------------


def test_prepare_sets_bad_rows_aside(command, mixed, tmp_path):
    out = tmp_path / "out"
    result = command("prepare", "--config=configs/data/sharegpt.py", f"--config.input={mixed}", f"--output={out}")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert len((out / "dialogues.jsonl").read_text().splitlines()) == GOOD
    rejected = set_aside(out / "rejected.jsonl")
    assert len(rejected) == len(BAD_ROWS) + 1
    check_rejected(rejected, mixed)
    card = json.loads((out / "card" / "card.json").read_text())
    assert (card["rows"], card["dialogues"], card["rejected"]) == (GOOD + 6, GOOD, 6)


def test_train_sets_bad_rows_and_those_that_the_template_fails_on_aside(run, mixed, tiny_tokenizer, tmp_path):
    template = tmp_path / "picky.jinja"
    source = load_tokenizer(tiny_tokenizer).chat_template
    template.write_text(
        "{% if 'bananas' in messages[0].content %}{{ raise_exception('no bananas, please') }}{% endif %}" + source
    )
    with open(mixed, "ab") as file:
        file.write(dialogue(6, ("user", "bananas"), ("assistant", "yes")) + b"\n")
    result = run(
        tmp_path / "run",
        f"--config.model.template={template}",
        "--config.steps=2",
        f"--config.data.cache_dir={tmp_path / 'tokens'}",
        data=mixed,
    )
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert f"dialogues {GOOD}," in result.stderr and "rejected 7," in result.stderr
    (path,) = (tmp_path / "tokens").glob("*/rejected.jsonl")
    rejected = set_aside(path)
    assert len(rejected) == 7
    check_rejected(rejected, mixed)
    (failed,) = (row for reason, row in rejected.items() if "no bananas, please" in reason)
    assert failed["id"] == "bad6" and failed["where"].endswith(f":{GOOD + 7}")


def test_no_data_left_after_filtering(command, run, tmp_path):
    path = tmp_path / "all_bad.jsonl"
    path.write_bytes(b"\n".join([BAD_ROWS["no messages"]] * 3 + [BAD_ROWS["not JSON"]]) + b"\n")
    line = one_line(run(tmp_path / "run", data=path))
    assert f"no dialogue left of {path}: all 4 were rejected, 3 of them because of: no messages (see " in line
    assert len(Path(line.split("(see ")[1].rstrip(")")).read_text().splitlines()) == 4
    out = tmp_path / "out"
    line = one_line(
        command("prepare", "--config=configs/data/sharegpt.py", f"--config.input={path}", f"--output={out}")
    )
    assert f"no dialogue left of {path}: all 4 rows were rejected, 3 of them because of: no messages" in line
    assert not out.exists()


# ----------------------------------------------------------------------------------------------------------------------
# Template, tokenizer, keys, mesh
# ----------------------------------------------------------------------------------------------------------------------


def test_a_template_that_always_fails(run, tmp_path):
    template = tmp_path / "broken.jinja"
    template.write_text("{% for message in messages %}\n{{ message.content \n{% endfor %}")
    line = one_line(run(tmp_path / "run", f"--config.model.template={template}"))
    assert f"{template}, line 3: " in line
    template.write_text("{{ raise_exception('this model takes no users') }}")
    assert f"{template}: this model takes no users" in one_line(
        run(tmp_path / "run", f"--config.model.template={template}")
    )


def test_a_tokenizer_that_does_not_fit_the_model(run, tiny_tokenizer, tmp_path):
    tokenizer = load_tokenizer(tiny_tokenizer)
    tokenizer.backend.add_tokens([f"<extra{number}>" for number in range(300)])
    tokenizer = type(tokenizer)(tokenizer.backend, tokenizer.config)
    tokenizer.save(tmp_path / "large")
    line = one_line(run(tmp_path / "run", f"--config.model.tokenizer={tmp_path / 'large'}"))
    assert f"the tokenizer has {tokenizer.vocab_size} ids but the model's vocabulary is 512" in line


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.batch_sze=8", "the config has no key 'batch_sze'; did you mean batch_size?"),
        ("--config.optimizer.warmup=8", "--config.optimizer.warmup=8: the config has no key 'warmup'"),
        ("--config.batch_size=abc", "--config.batch_size=abc: not a whole number"),
        ("--config.optimizer.learning_rate=fast", "--config.optimizer.learning_rate=fast: not a number"),
        ("--config.data.packing=perhaps", "--config.data.packing=perhaps: neither true nor false"),
    ],
)
def test_wrong_keys_and_types(run, flag, message, tmp_path):
    assert message in one_line(run(tmp_path / "run", flag))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "mesh, message",
    [
        ("fsdp=3", "mesh 'fsdp=3' does not divide the 8 devices here"),
        ("tensor=8", "does not divide parameter 'layers/attention/k' of shape (5, 64, 4, 8): 4 is not a multiple of 8"),
        ("fsdp=8", "batch_size=4 is not a multiple of accumulation=1 x 8 (mesh data x fsdp)"),
        ("model=8", "unknown axis 'model'; the axes are data, fsdp, sequence, tensor"),
    ],
)
def test_a_mesh_that_does_not_divide(run, mesh, message, tmp_path):
    assert message in one_line(run(tmp_path / "run", f"--config.mesh={mesh}", devices=8))


# ----------------------------------------------------------------------------------------------------------------------
# Workdir, checkpoints, disk
# ----------------------------------------------------------------------------------------------------------------------


def test_a_workdir_of_another_config(run):
    before = {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}
    line = one_line(run(run.workdir, "--config.steps=4", "--config.optimizer.learning_rate=0.5", "--config.seed=3"))
    assert f"{run.workdir}/config.json: belongs to a run with another config" in line
    assert "optimizer.learning_rate (0.01 there, 0.5 now), seed (0 there, 3 now); use a new --workdir" in line
    assert before == {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}


def test_a_missing_shard_of_a_checkpoint(run, command, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    shards = [path for path in (workdir / "checkpoints" / "4" / "params").rglob("*") if path.parent.name == "d"]
    max(shards, key=lambda path: path.stat().st_size).unlink()
    result = run(workdir, "--config.steps=4")
    line = one_line(result)
    items = "optimizer, params, stream"
    assert f"{workdir}/checkpoints/4: {items} cannot be restored, a file may be missing or damaged" in line
    assert "remove that folder to go on from an earlier step" in line
    line = one_line(command("convert", f"--from=orbax:{workdir}", f"--to=hf:{tmp_path / 'out'}"))
    assert "checkpoints/4: params cannot be restored" in line
    # What the line says to do helps, and loses nothing.
    shutil.rmtree(workdir / "checkpoints" / "4")
    result = run(workdir, "--config.steps=4")
    assert result.returncode == 0 and "resumed from step 2" in result.stderr, result.stderr
    keys = ("step", "loss", "grad_norm", "learning_rate", "loss_tokens")
    got, wanted = (
        [[json.loads(line)[key] for key in keys] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (workdir, run.workdir)
    )
    assert got == wanted


@contextlib.contextmanager
def small_disk(folder: Path):
    """A disk of 5 MB that `make_room` enlarges; where none can be mounted, options that limit a process's files."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, "size=5m", "tmpfs", folder], capture_output=True, check=False).returncode:
        limit = (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        yield {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)}, lambda: None
        return
    try:
        yield {}, lambda: subprocess.run([*mount, "remount,size=64m", "tmpfs", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.name != "posix", reason="needs a disk or a file size that can be limited")
def test_a_full_disk_while_saving(run, tmp_path):
    with small_disk(tmp_path / "disk") as (options, make_room):
        workdir = tmp_path / "disk" / "run"
        line = one_line(run(workdir, "--config.steps=8", **options))
        assert f"{workdir}/checkpoints: a checkpoint could not be written (" in line
        assert "No space left on device" in line or "File too large" in line
        assert "free some space and start the same command again" in line
        whole = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
        make_room()
        result = run(workdir, "--config.steps=8")
        assert result.returncode == 0, result.stderr
        assert not whole or f"resumed from step {whole[-1]} " in result.stderr
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 9))
        assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["6", "8"]
