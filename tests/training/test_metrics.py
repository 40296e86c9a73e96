import json
import resource
import signal

import numpy as np
import pytest
from etils import epath
from tensorboardX.proto.event_pb2 import Event

from imitation_jax.training.metrics import MetricsWriter


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_numbers_come_back_bit_for_bit(tmp_path):
    value = float(np.float32(0.1) * np.float32(3.3))
    with MetricsWriter(epath.Path(tmp_path), 0) as writer:
        writer.write(1, {"loss": value, "skipped": 0.0})
        assert json.loads(lines(tmp_path)[0]) == {"step": 1, "loss": value, "skipped": 0.0}  # not only at the end


def test_after_a_kill_later_lines_and_half_a_line_go(tmp_path):
    whole = [json.dumps({"step": step, "loss": step / 7}) for step in range(1, 7)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(whole) + '\n{"step": 7, "lo')
    with MetricsWriter(epath.Path(tmp_path), 4) as writer:
        assert lines(tmp_path) == whole[:4]
        writer.write(5, {"loss": 0.5})
    assert lines(tmp_path) == [*whole[:4], '{"step": 5, "loss": 0.5}']


def test_a_last_line_without_its_newline_is_kept_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.5}\n{"step": 2, "loss": 1.25}')
    with MetricsWriter(epath.Path(tmp_path), 2) as writer:
        writer.write(3, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3]


def events(folder):
    """The events of all TensorBoard files: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    found = []
    for path in sorted(folder.glob("tensorboard/events*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_tensorboard_has_every_number_and_text(tmp_path):
    with MetricsWriter(epath.Path(tmp_path), 0) as writer:
        writer.write(1, {"loss": 2.5, "mfu": 0.5})
        writer.write_text(1, "sample/0", "Hello")
    with MetricsWriter(epath.Path(tmp_path), 1) as writer:
        writer.write(2, {"mfu": 0.25})
    # TensorBoard forgets steps from here on that earlier files hold.
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [1, 2]
    values = {value.tag: (event.step, value) for event in events(tmp_path) for value in event.summary.value}
    assert values["mfu"][0] == 2
    assert values["loss"][0] == 1 and values["loss"][1].simple_value == pytest.approx(2.5)
    text = next(value for tag, (_, value) in values.items() if "sample" in tag)
    assert b"Hello" in text.SerializeToString()


def test_a_full_disk_is_said_in_one_line(tmp_path):
    with MetricsWriter(epath.Path(tmp_path), 0) as writer:
        writer.write(1, {"loss": 1.0})
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size + 10, hard))
            with pytest.raises(OSError, match="metrics could not be written .File too large.; free some space"):
                writer.write(2, {"loss": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            signal.signal(signal.SIGXFSZ, before)
    # What the failed write left is cut off by the next start.
    with MetricsWriter(epath.Path(tmp_path), 1):
        assert lines(tmp_path) == ['{"step": 1, "loss": 1.0}']
