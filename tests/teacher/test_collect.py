import json
import re
import resource
import threading
from collections import Counter

import pytest
from api_server import reply
from hostile_teacher import KEY, QUICK, SLOW, Tally, completion

from imitation_jax.clients.budget import BudgetSpentError, open_budget
from imitation_jax.core.append_only import Lines
from imitation_jax.data import dialogues
from imitation_jax.teacher import sidecar
from imitation_jax.teacher.collect import collect, plan


def spent(config, output):
    budget = open_budget(config, sidecar.ledger(output))
    budget.close()
    return budget


def texts(path):
    with open(path) as file:
        return [json.loads(line)["instruction"] for line in file]


def test_an_answer_is_a_dialogue_and_an_answer_file_s_row_with_all_that_is_known_of_it(
    server, config, write_prompts, rows, tmp_path
):
    server.replies = [Tally().reply]
    output = str(tmp_path / "out.jsonl")
    collect(config, write_prompts(3), output)
    found = {row["id"]: row for row in rows(output)}
    assert set(found) == {"p0", "p1", "p2"}
    row = found["p1"]
    assert row["messages"] == [
        {"role": "user", "content": "What is 1 and 1?"},
        {"role": "assistant", "content": "You said: What is 1 and 1?"},
    ]
    assert (row["instruction"], row["output"]) == tuple(turn["content"] for turn in row["messages"])
    assert row["generator"] == row["model"] == row["source"] == "teacher" and row["finish_reason"] == "stop"
    assert row["parameters"] == {"model": "teacher", "temperature": 1.0, "max_tokens": 50}
    assert row["usage"] == {"prompt_tokens": 11, "completion_tokens": 7} and 0 < row["seconds"] < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["time"])
    for _, dialogue in dialogues.read(output):
        dialogues.check(dialogue)
    asked = server.asked[0]
    assert asked["authorization"] == f"Bearer {KEY}"
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("teacher", 1.0, 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.spend.sqlite", "prompts.jsonl"]


def test_hostile_teacher(server, config, write_prompts, rows, tmp_path):
    """Exactly one answer a prompt, none asked again once answered, the tally agree to the token."""
    kinds, slow = list(QUICK), list(SLOW)

    def troubles(number):
        if number % 20 == 7:
            return [slow[number // 20 % len(slow)]]
        return [kinds[(number + step) % len(kinds)] for step in range(number % 4)]

    tally = Tally(troubles)
    server.replies, config.timeout = [tally.reply], 4.0
    output = str(tmp_path / "out.jsonl")
    path = write_prompts(60)
    collect(config, path, output)
    assert sorted(row["instruction"] for row in rows(output)) == sorted(texts(path))
    assert all(row["output"] == f"You said: {row['instruction']}" for row in rows(output))
    assert set(tally.answered.values()) == {1} and len(tally.answered) == 60
    budget = spent(config, output)
    assert budget.known == (tally.prompt_tokens, tally.completion_tokens)
    assert budget.cost(budget.known) == pytest.approx(tally.dollars, abs=1e-12)
    assert not rows(tmp_path / "out.failed.jsonl")
    before = len(server.asked)
    collect(config, path, output)
    assert len(server.asked) == before


def test_the_budget_is_kept_to_the_cent_and_a_larger_one_goes_on(server, config, write_prompts, rows, tmp_path):
    kinds = ["429 with seconds", "another model", "500", "empty choice", "reset", "200 with an error"]
    tally = Tally(lambda number: [kinds[number % len(kinds)]] * (number % 2))
    server.replies = [tally.reply]
    output, path = str(tmp_path / "out.jsonl"), write_prompts(60)
    for dollars in (0.001, 0.002, 0.003):
        config.budget.dollars = dollars
        with pytest.raises(
            BudgetSpentError, match=rf"the budget of \${dollars:.4f} is spent \(\$0.00[0-3]\d spent, the next"
        ):
            collect(config, path, output)
        budget = spent(config, output)
        assert budget.known == (tally.prompt_tokens, tally.completion_tokens)
        assert budget.cost(budget.known + budget.uncertain) <= dollars
        # All but what the next one could have cost is used.
        assert budget.cost(budget.known + budget.uncertain) > dollars - 1e-3
        assert len(rows(output)) == tally.answered.total()
    config.budget.dollars = 1.0
    collect(config, path, output)
    assert set(tally.answered.values()) == {1} and len(rows(output)) == 60
    assert spent(config, output).cost(spent(config, output).known) == pytest.approx(tally.dollars, abs=1e-12)
    assert tally.dollars < 1.0


def test_a_budget_of_tokens(server, config, write_prompts, rows, tmp_path):
    tally = Tally()
    server.replies = [tally.reply]
    config.budget.tokens = 500
    output = str(tmp_path / "out.jsonl")
    with pytest.raises(BudgetSpentError, match="the budget of 500 tokens is spent"):
        collect(config, write_prompts(60), output)
    assert 300 < tally.prompt_tokens + tally.completion_tokens <= 500
    assert len(rows(output)) == tally.answered.total()


@pytest.mark.parametrize("shape", ["json", "lines"])
def test_the_order_of_prompts_is_no_matter(server, config, rows, tmp_path, shape):
    tally = Tally()
    server.replies = [tally.reply]
    output = str(tmp_path / "out.jsonl")
    said = [f"line {number}" for number in range(30)] + ["twice", "twice"]

    def write(order):
        path = tmp_path / ("prompts.txt" if shape == "lines" else "prompts.jsonl")
        given = [json.dumps({"id": f"p{number}", "instruction": said[number]}) for number in order]
        path.write_text("\n".join([said[number] for number in order] if shape == "lines" else given))
        return str(path)

    collect(config, write(range(10, 20)), output)
    collect(config, write([31, *reversed(range(20)), 30]), output)
    collect(config, write(range(32)), output)
    assert tally.answered == Counter(said)
    found = rows(output)
    assert sorted(row["instruction"] for row in found) == sorted(said)
    assert len({row["id"] for row in found}) == 32


def test_an_id_that_comes_with_another_text_is_asked_beside_it(server, config, rows, tmp_path):
    tally = Tally()
    server.replies = [tally.reply]
    output, path = str(tmp_path / "out.jsonl"), tmp_path / "p.jsonl"
    for text in ("one", "two", "two"):
        path.write_text(json.dumps({"id": "a", "instruction": text}) + "\n")
        collect(config, str(path), output)
    found = rows(output)
    assert [(row["id"], row.get("original_id"), row["instruction"]) for row in found] == [
        ("a", None, "one"),
        ("a#2", "a", "two"),
    ]


def test_other_parameters_are_refused_and_named(server, config, write_prompts, tmp_path):
    server.replies = [Tally().reply]
    output = str(tmp_path / "out.jsonl")
    collect(config, write_prompts(2), output)
    config.parameters.temperature, config.model = 0.5, "another"
    with pytest.raises(ValueError) as error:
        collect(config, write_prompts(4), output)
    wanted = "model (teacher there, another now), temperature (1.0 there, 0.5 now); use another --output"
    assert f"{output}: was asked with other parameters: {wanted}" in str(error.value)
    assert len(server.asked) == 2
    (tmp_path / "other.jsonl").write_text('{"id": 1, "messages": []}\n')
    with pytest.raises(ValueError, match="no answers of collect"):
        collect(config, write_prompts(4), str(tmp_path / "other.jsonl"))


def test_a_torn_last_line_is_asked_again_and_one_process_writes_at_once(server, config, write_prompts, rows, tmp_path):
    server.replies = [Tally().reply]
    output, path = tmp_path / "out.jsonl", write_prompts(5)
    collect(config, path, str(output))
    whole = output.read_bytes()
    output.write_bytes(whole[:-20])
    collect(config, path, str(output))
    assert len(rows(output)) == 5 and len(server.asked) == 6
    output.write_bytes(whole[:-1])  # the row is whole
    collect(config, path, str(output))
    assert len(rows(output)) == 5 and len(server.asked) == 6
    other = Lines(output)
    with pytest.raises(BlockingIOError, match="another process writes to it"):
        collect(config, path, str(output))
    other.close()
    output.write_bytes(b"garbage\n" + whole)
    with pytest.raises(ValueError, match=r"out.jsonl:1: not a JSON object"):
        collect(config, path, str(output))


def test_refused_prompts_are_told_and_asked_again_only_on_demand(server, config, write_prompts, rows, tmp_path):
    angry = {"What is 1 and 1?": "too long", "What is 3 and 3?": "content_filter"}
    tally = Tally()

    def refuse(body):
        why = angry.get(body["messages"][-1]["content"])
        if why == "too long":
            return reply({"error": {"message": f"too long, {KEY}"}}, 400)
        return reply(completion("no", finish_reason=why)) if why else tally.reply(body)

    server.replies = [refuse]
    output, path = str(tmp_path / "out.jsonl"), write_prompts(5)
    collect(config, path, output)
    failed = {row["id"]: row for row in rows(tmp_path / "out.failed.jsonl")}
    assert {key: row["refused"] for key, row in failed.items()} == {"p1": True, "p3": True}
    assert failed["p1"]["reason"].endswith("400 too long, ***") and "filter" in failed["p3"]["reason"]
    assert failed["p1"]["messages"] == [{"role": "user", "content": "What is 1 and 1?"}]
    asked = len(server.asked)
    collect(config, path, output)
    assert len(server.asked) == asked == 5
    del angry["What is 1 and 1?"]
    collect(config, path, output, retry_refused=True)
    assert len(server.asked) == asked + 2 and len(rows(output)) == 4
    assert [row["id"] for row in rows(tmp_path / "out.failed.jsonl")] == ["p3"]


def test_what_got_no_answer_is_told_and_asked_again(server, config, write_prompts, rows, tmp_path):
    tally = Tally(lambda number: ["500"] * 7 if number == 2 else [])
    server.replies = [tally.reply]
    config.tries, config.concurrency = 2, 1
    output, path = str(tmp_path / "out.jsonl"), write_prompts(5)
    with pytest.raises(ValueError, match="1 of 5 prompts got no answer, the last because of: .*after 2 tries: 500"):
        collect(config, path, output)
    assert [row["refused"] for row in rows(tmp_path / "out.failed.jsonl")] == [False]
    collect(config, path, output)
    assert len(rows(output)) == 5 and set(tally.answered.values()) == {1}
    assert not rows(tmp_path / "out.failed.jsonl")


def test_it_ends_when_nothing_but_failures_comes(server, config, write_prompts, tmp_path):
    server.close()
    config.tries, config.failures = 1, 5
    with pytest.raises(ValueError, match="5 requests in a row failed, the last so: .*gave up after 1 tries"):
        collect(config, write_prompts(50), str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("status, code", [(401, "invalid_api_key"), (403, ""), (404, "model_not_found"), (302, "")])
def test_what_no_prompt_can_help_ends_it_at_once(server, config, write_prompts, tmp_path, status, code):
    server.replies = [reply({"error": {"message": f"no, {KEY}", "code": code}}, status, Location="/elsewhere")]
    with pytest.raises(ValueError, match=rf"127.0.0.1:\d+: {status} no, \*\*\*.*; nothing more is asked") as error:
        collect(config, write_prompts(100), str(tmp_path / "out.jsonl"))
    assert ("the key is what TEACHER_KEY holds" in str(error.value)) == (status in (401, 403))
    assert len(server.asked) <= 16
    assert not (tmp_path / "out.jsonl").exists()


def test_what_was_paid_for_is_kept_when_the_money_ends(server, config, write_prompts, rows, tmp_path):
    asked, config.concurrency = threading.Semaphore(0), 2

    def answer(body):
        """The second says that there is no money when the third is under way, which is answered later."""
        text = body["messages"][-1]["content"]
        asked.release()
        if text == "What is 1 and 1?":
            asked.acquire(), asked.acquire(), asked.acquire()
            return reply({"error": {"message": "quota", "type": "insufficient_quota"}}, 429)
        return reply(completion("yes"), seconds=0.5 if text == "What is 2 and 2?" else 0)

    server.replies = [answer]
    with pytest.raises(ValueError, match="429 quota; nothing more is asked"):
        collect(config, write_prompts(10), str(tmp_path / "out.jsonl"))
    assert sorted(row["id"] for row in rows(tmp_path / "out.jsonl")) == ["p0", "p2"]


def test_a_home_folder_is_the_same_at_every_start(server, config, write_prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    server.replies = [Tally().reply]
    for _ in range(2):
        collect(config, write_prompts(3), "~/out.jsonl")
    assert len(server.asked) == 3 and "3 answered" in plan(config, write_prompts(3), "~/out.jsonl")


def test_a_full_disk_leaves_no_half_a_row(rows, tmp_path):
    output, limits = tmp_path / "out.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    lines = Lines(output)
    lines.append({"n": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            lines.append({"n": "x" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.append({"n": 2})
    lines.close()
    assert rows(output) == [{"n": 1}, {"n": 2}]


def test_no_money_left_is_no_matter_of_time(server, config, write_prompts, tmp_path):
    server.replies = [reply({"error": {"message": "quota", "type": "insufficient_quota"}}, 429)]
    with pytest.raises(ValueError, match="429 quota; nothing more is asked"):
        collect(config, write_prompts(10), str(tmp_path / "out.jsonl"))


def test_answers_of_snapshots_and_of_named_models_count(server, config, write_prompts, rows, tmp_path):
    names = iter(["teacher-0613", "teacher-2024-08-06", "deployed", "teacher-mini", "teacher"])
    server.replies = [lambda body: reply(completion("yes", model=next(names)))]
    config.concurrency, config.also_answers = 1, "deployed, x"
    output = tmp_path / "out.jsonl"
    collect(config, write_prompts(4), str(output))
    assert [row["model"] for row in rows(output)] == ["teacher-0613", "teacher-2024-08-06", "deployed", "teacher"]
    budget = spent(config, str(output))
    assert budget.known.prompt == 5 * 11  # what the wrong model said was paid for too


def test_seeds_are_the_prompt_s_own(server, config, write_prompts, rows, tmp_path):
    server.replies = [Tally().reply]
    config.send_seed = True
    collect(config, write_prompts(4), str(tmp_path / "a.jsonl"))
    collect(config, write_prompts(8), str(tmp_path / "b.jsonl"))
    one, other = ({row["id"]: row["seed"] for row in rows(tmp_path / name)} for name in ("a.jsonl", "b.jsonl"))
    assert len(set(other.values())) == 8 and one.items() < other.items()
    assert {asked["seed"] for asked in server.asked} == set(other.values())


def test_a_dry_run_asks_nothing_and_writes_nothing(server, config, write_prompts, tmp_path, monkeypatch):
    server.replies = [Tally().reply]
    output = str(tmp_path / "out.jsonl")
    collect(config, write_prompts(40), output)
    monkeypatch.delenv("TEACHER_KEY")
    config.requests_per_minute, config.tokens_per_minute, config.budget.dollars = 100.0, 1000.0, 0.01
    asked, files = len(server.asked), sorted(tmp_path.iterdir())
    text = plan(config, write_prompts(100), output)
    assert len(server.asked) == asked and sorted(tmp_path.iterdir()) == files
    prompts = sum(-(-len(f"What is {n} and {n}?") // 4) for n in range(40, 100))
    assert "100 prompts, 0 rows set aside; 40 answered, 0 refused, 60 to ask" in text
    assert f"about {prompts:,} tokens of prompts" in text and "at most 3,000 of answers (50 each)" in text
    assert f"cost: from {prompts} tokens, $0.00 to {prompts + 3000:,} tokens, $0.02; spent so far: 720" in text
    assert "about 720 tokens" in text and "the budget of 0.01 dollars may not be enough" in text
    assert f"in {-(-(prompts + 3000) // 1000)} minutes" in text


def test_rows_that_are_no_prompts_are_set_aside(server, config, rows, tmp_path):
    server.replies = [Tally().reply]
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "instruction": "good"}\n{"id": "b"}\nno JSON\n')
    collect(config, str(path), str(tmp_path / "out.jsonl"))
    assert [row["id"] for row in rows(tmp_path / "out.jsonl")] == ["a"]
    assert [row["where"] for row in rows(tmp_path / "out.rejected.jsonl")] == [f"{path}:2", f"{path}:3"]
    path.write_text('{"id": "b"}\n')
    with pytest.raises(ValueError, match="p.jsonl: holds no prompts: needs a text"):
        collect(config, str(path), str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("url", "", "config.url is empty"),
        ("concurrency", 0, "config.concurrency=0: must be 1 or more"),
        ("timeout", 0.0, "config.timeout=0.0: must be more than 0"),
        ("price.prompt", 0.0, "config.budget.dollars: needs config.price.prompt"),
        ("tokens_per_minute", -1.0, "config.tokens_per_minute=-1.0: must not be negative"),
        ("key", "NO_SUCH_KEY", "NO_SUCH_KEY is not set in the environment"),
        ("parameters.max_tokens", 0, "a budget needs parameters.max_tokens"),
        ("parameters.max_tokens", -1, "a budget needs parameters.max_tokens"),
        ("url", "no address", "no address/chat/completions: no address to ask"),
    ],
)
def test_a_bad_config_is_one_line(config, write_prompts, tmp_path, key, value, message):
    config.budget.dollars = 1.0
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=re.escape(message)):
        collect(config, write_prompts(1), str(tmp_path / "out.jsonl"))
