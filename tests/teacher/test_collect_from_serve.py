"""The offline teacher: SmolLM2 behind this project's own server."""

import json
import re
import signal
import time

import pytest

from imitation_jax.data import normalise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(command, smollm2_gguf, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    with open(log, "w") as file:
        flags = [f"--model=gguf:{smollm2_gguf}", "--port=0", "--context=4096"]
        process = command.start("serve", *flags, quick=False, stdout=file, stderr=file)
        while not (found := re.search(r"API (http\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found[1]
        process.send_signal(signal.SIGINT)
        process.wait()


def test_200_real_prompts_with_a_kill_in_between(command, url, lent, rows, tmp_path):
    with open(lent("koala_test_set/koala_test_set.jsonl")) as file:
        prompts = [{"id": row["id"], "instruction": row["prompt"]} for row in map(json.loads, file)]
    with open(lent("self_instruct/user_oriented_instructions.jsonl")) as file:
        prompts += [{"id": row["id"], "instruction": row["instruction"]} for row in map(json.loads, file)]
    path, output = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts[:200]))
    flags = ["--config=configs/teacher/local.py", f"--config.url={url}", f"--prompts={path}", f"--output={output}"]
    flags += ["--config.parameters.max_tokens=48"]
    process = command.start("collect", *flags)
    while not output.exists() or len(rows(output)) < 40:
        time.sleep(0.2)
    process.kill()
    process.communicate()
    first = output.read_text()
    result = command("collect", *flags)
    assert result.returncode == 0, result.stderr
    assert output.read_text().startswith(first[: first.rindex("\n") + 1])
    answered, refused = rows(output), rows(tmp_path / "out.failed.jsonl")
    assert sorted(row["id"] for row in answered + refused) == sorted(row["id"] for row in prompts[:200])
    assert all("says nothing" in row["reason"] for row in refused) and len(refused) <= 10
    assert all(row["usage"]["completion_tokens"] <= 48 for row in answered)


def test_200_unique_pairs_of_nq_and_none_of_the_evaluation_set(command, url, lent, rows, tmp_path):
    output, avoid = tmp_path / "nq.jsonl", lent("nq_open/NQ-open.dev.jsonl")
    seeds = lent("nq_open/NQ-open.efficientqa.dev.1.1.jsonl")
    flags = ["--config=configs/teacher/nq_synthetic.py:local", f"--config.url={url}", f"--output={output}"]
    result = command("collect", *flags, f"--config.seeds={seeds}", f"--config.avoid={avoid}")
    assert result.returncode == 0, result.stderr
    pairs = {normalise.words(row["instruction"]): row["output"] for row in rows(output)}
    with open(avoid) as file:
        evaluated = {normalise.words(json.loads(line)["question"]) for line in file}
    assert len(rows(output)) == len(pairs) == 200 and not pairs.keys() & evaluated
