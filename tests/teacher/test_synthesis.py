import json
import runpy
import signal
import time
from pathlib import Path
from random import Random

import pytest
from api_server import reply
from hostile_teacher import KEY, MODEL, QUICK, Tally, completion

from imitation_jax.clients.budget import BudgetSpentError
from imitation_jax.data import dialogues
from imitation_jax.teacher.synthesis import grow, plan

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "teacher"
EVALUATION = [
    "who wrote the play about the prince of denmark",  # eight words
    "where was it",
    "what is the name of the river that flows through the old capital of the northern province",
]
LEFT_OUT = {"in": "stands in the evaluation set", "again": "repeats a question", "seed": "repeats a seed"}


@pytest.fixture
def nq(config, tmp_path):
    """A config of NQ-synthetic that asks the test's server; seeds and evaluation set are small files."""
    nq = runpy.run_path(str(CONFIGS / "nq_synthetic.py"))["get_config"]()
    for key in ("url", "model", "key", "concurrency", "first_wait", "timeout", "price"):
        nq[key] = config[key]
    nq.tokens_per_minute = nq.requests_per_minute = 0.0
    nq.send_seed = True  # tells the scripted teacher the request's number
    nq.target, nq.window = 120, 8
    seeds = ({"question": f"who is seed number {n}", "answer": [f"Seed {n}", "other"]} for n in range(12))
    avoid = ({"question": question, "answer": ["x"]} for question in EVALUATION)
    for name, rows in (("seeds", seeds), ("avoid", avoid)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        nq[name] = str(tmp_path / f"{name}.jsonl")
    return nq


def say(number):
    """What the scripted teacher answers to a request: its text, and (question, answer, kind) of each pair in it."""
    random = Random(number)
    if random.random() < 0.1:
        return "I am sorry, I cannot do that.", []
    pairs = []
    for _ in range(random.randint(1, 8)):
        kind = random.choice(["new"] * 8 + ["in", "inside", "seed", "long"])
        question = {
            "in": random.choice(EVALUATION).title() + "?",
            "inside": f"tell me, {EVALUATION[random.choice([0, 2])]}!",
            "seed": "Who is seed, number 3?",
        }.get(kind, f"Who found island {random.randint(0, 150)}?")
        answer = " ".join(["word"] * 11) if kind == "long" else f"Captain {random.randint(0, 9)}"
        pairs.append((question, answer, kind))
    style = random.randint(0, 4)
    if style == 0:
        return json.dumps([{"Question": question, "Answer": answer} for question, answer, _ in pairs]), pairs
    forms = [
        "Question: {}\nAnswer: {}",
        "**Question {}:** {}\n**Answer:** {}",
        "{}. Q: {}\n   A: {}",
        "Question: {} Answer: {}",
    ]
    form = forms[style - 1]
    lines = (
        form.format(*([place] if form.count("{}") == 3 else []), question, answer)
        for place, (question, answer, _) in enumerate(pairs, 1)
    )
    return "Here they are:\n\n" + "\n\n".join(lines), pairs


def expected(target):
    """(pairs taken, reasons of what was left out) when the requests' answers are read in order."""
    taken, reasons, number = {}, [], 0
    while len(taken) < target:
        text, pairs = say(number)
        reasons += [] if pairs else ["no question with its answer"]
        for question, answer, kind in pairs:
            question = question.lower()
            if kind == "long":
                reasons.append("answer of more than 10 words")
            elif kind == "seed" or kind.startswith("in"):
                reasons.append(LEFT_OUT[kind[:2] if kind != "seed" else kind])
            elif question in taken:
                reasons.append(LEFT_OUT["again"])
            elif len(taken) < target:
                taken[question] = answer
        number += 1
    return list(taken.items()), reasons


def scripted(body):
    return say(body["seed"])[0]


def test_nq_from_a_scripted_teacher_is_exact(server, nq, rows, tmp_path):
    """Whatever order the answers come in, and with every misbehaviour between them."""
    kinds = [kind for kind in QUICK if not kind.startswith("429")]
    tally = Tally(lambda number: [kinds[number % len(kinds)]] * (number % 2), scripted)
    random = Random(0)
    server.replies = [lambda body: (*tally.reply(body)[:3], random.uniform(0, 0.05))]
    output = tmp_path / "nq.jsonl"
    grow(nq, str(output))
    pairs, reasons = expected(120)
    assert [(row["instruction"], row["output"]) for row in rows(output)] == pairs
    assert [row["reason"] for row in rows(tmp_path / "nq.rejected.jsonl")] == reasons
    assert {LEFT_OUT["in"], LEFT_OUT["again"], LEFT_OUT["seed"]} < set(reasons)
    row = rows(output)[0]
    assert row["source"] == "nq_synthetic" and row["generator"] == row["model"] == MODEL
    assert rows(tmp_path / "nq.answers.jsonl")[0]["parameters"]["temperature"] == 1.0
    for _, dialogue in dialogues.read(str(output)):
        dialogues.check(dialogue)
    asked = len(server.asked)
    grow(nq, str(output))
    assert len(server.asked) == asked
    nq.target = 140  # more of the same
    grow(nq, str(output))
    assert [(row["instruction"], row["output"]) for row in rows(output)] == expected(140)[0]


def test_requests_show_five_of_ten_seeds_drawn_anew(server, nq, tmp_path):
    server.replies = [Tally(answer=scripted).reply]
    grow(nq, str(tmp_path / "nq.jsonl"))
    shown = [
        {line for line in request["messages"][0]["content"].splitlines() if line.startswith("Question: who is seed")}
        for request in server.asked
    ]
    assert all(len(lines) == 5 for lines in shown) and len(set().union(*shown)) == 10
    assert len(set(map(frozenset, shown))) > len(shown) // 2
    assert "Now write 10 new questions" in server.asked[0]["messages"][0]["content"]


def test_the_budget_stops_it_and_a_larger_one_goes_on_as_if_it_had_not(server, nq, rows, tmp_path):
    server.replies = [Tally(answer=scripted).reply]
    nq.budget.dollars = 0.01
    nq.parameters.max_tokens = 200
    output = tmp_path / "nq.jsonl"
    with pytest.raises(BudgetSpentError, match="budget of \\$0.0100 is spent"):
        grow(nq, str(output))
    assert 0 < len(rows(output)) < 120
    nq.budget.dollars = 1.0
    grow(nq, str(output))
    assert [(row["instruction"], row["output"]) for row in rows(output)] == expected(120)[0]


def test_killed_at_any_moment_it_goes_on_exactly(command, server, nq, rows, tmp_path, monkeypatch):
    tally = Tally(lambda number: ["500"] * (number % 5 == 0), scripted)
    random = Random(1)
    server.replies = [lambda body: (*tally.reply(body)[:3], random.uniform(0, 0.1))]
    monkeypatch.setenv("TEACHER_KEY", KEY)
    output = tmp_path / "nq.jsonl"
    flags = [f"--config.{key}={nq[key]}" for key in ("url", "model", "key", "seeds", "avoid", "target", "window")]
    flags += ["--config.first_wait=0.02", "--config.tokens_per_minute=0", "--config.send_seed=True"]
    flags = ["--config=configs/teacher/nq_synthetic.py", *flags, f"--output={output}"]
    process = command.start("collect", *flags)
    while tally.answered.total() < random.randint(12, 24):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with open(tmp_path / "nq.answers.jsonl", "ab") as file:
        file.write(b'{"id": "nq')  # cut off
    whole = (tmp_path / "nq.answers.jsonl").read_bytes().splitlines()[:-1]
    known = {json.loads(line)["instruction"] for line in whole}
    before = len(server.asked)
    result = command("collect", *flags)
    assert result.returncode == 0 and "120 rows of" in result.stderr, result.stderr
    assert known and not known & {request["messages"][-1]["content"] for request in server.asked[before:]}
    assert [(row["instruction"], row["output"]) for row in rows(output)] == expected(120)[0]
    assert [row["reason"] for row in rows(tmp_path / "nq.rejected.jsonl")] == expected(120)[1]


def test_other_seeds_or_edited_files_are_refused(server, nq, rows, tmp_path):
    server.replies = [Tally(answer=scripted).reply]
    output = tmp_path / "nq.jsonl"
    grow(nq, str(output))
    nq.shown, nq.target = 4, 135
    with pytest.raises(ValueError, match="nq.answers.jsonl: request 0 asked something else than this config asks"):
        grow(nq, str(output))
    nq.shown = 5
    nq.parameters.temperature = 0.1
    with pytest.raises(ValueError, match=r"temperature \(1.0 there, 0.1 now\)"):
        grow(nq, str(output))
    nq.parameters.temperature = 1.0
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(ValueError, match="nq.jsonl:4: is not what came of the answers beside it"):
        grow(nq, str(output))
    output.write_text("garbage\n")
    with pytest.raises(ValueError, match="nq.jsonl:1: is not what came of the answers beside it"):
        grow(nq, str(output))
    output.unlink()
    grow(nq, str(output))
    assert len(rows(output)) == 135


def test_without_hope_it_ends_and_says_why(server, nq, rows, tmp_path):
    server.replies = [lambda body: reply(completion("Question: Who is seed number 1?\nAnswer: me"))]
    nq.patience = 20
    with pytest.raises(ValueError) as error:
        grow(nq, str(tmp_path / "nq.jsonl"))
    assert "the last 20 answers gave 0 rows" in str(error.value) and "repeats a seed" in str(error.value)
    asked = len(server.asked)
    assert asked <= 20 + nq.window and len(rows(tmp_path / "nq.answers.jsonl")) == asked
    with pytest.raises(ValueError, match="gave 0 rows"):
        grow(nq, str(tmp_path / "nq.jsonl"))
    assert len(server.asked) == asked


def test_refused_requests_are_part_of_what_happened(server, nq, rows, tmp_path):
    def some(body):
        return (400, {"error": "no"}, {}, 0) if body["seed"] % 3 == 0 else reply(completion(scripted(body)))

    server.replies = [some]
    output = tmp_path / "nq.jsonl"
    nq.target = 40
    grow(nq, str(output))
    assert len(rows(output)) == 40 and all(row["request"] % 3 for row in rows(output))
    asked = len(server.asked)
    grow(nq, str(output))
    assert len(server.asked) == asked
    assert "refused" in {row["reason"] for row in rows(tmp_path / "nq.rejected.jsonl")}


def test_a_dry_run_tells_the_least(server, nq, tmp_path):
    server.replies = [Tally().reply]
    text = plan(nq, str(tmp_path / "nq.jsonl"))
    assert "0 rows of 0 answers; at least 12 requests to go" in text and "Question: who is seed number" in text
    assert not server.asked and not (tmp_path / "nq.jsonl").exists()


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("seeds", "", "config.seeds is empty"),
        ("avoid", "", "config.avoid is empty; name what the student will be evaluated on, or none"),
        ("shown", 11, "config.seed_pairs=10: fewer than config.shown=11"),
        ("shown", 13, "12 pairs, too few to show 13"),
        ("prompt", "no examples", "config.prompt: must hold {examples}"),
        ("window", 0, "config.window=0: must be 1 or more"),
        ("task", "mq", "config.task='mq': expected answers, nq, self_instruct, tldr"),
    ],
)
def test_a_bad_config_is_one_line(nq, tmp_path, key, value, message):
    nq[key] = value
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        grow(nq, str(tmp_path / "nq.jsonl"))


# ----------------------------------------------------------------------------------------------------------------------
# TLDR and Self-Instruct
# ----------------------------------------------------------------------------------------------------------------------


def test_tldr_asks_once_for_each_passage_but_those_of_the_evaluation_set(server, config, rows, tmp_path):
    tldr = runpy.run_path(str(CONFIGS / "tldr_synthetic.py"))["get_config"]()
    for key in ("url", "model", "key", "concurrency", "first_wait", "timeout", "price"):
        tldr[key] = config[key]
    tldr.tokens_per_minute = tldr.requests_per_minute = 0.0
    passages = [f"Passage {n} is about the {n}th thing. " * 4 + "TL;DR:" for n in range(30)]
    known = "it was a long day in which many things went wrong for all of us there"
    given = [*passages, passages[3], f"And then, {known}, and more."]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in given))
    (tmp_path / "avoid.jsonl").write_text(json.dumps({"document": f"We saw that {known.upper()}."}) + "\n")
    tldr.passages, tldr.avoid = str(tmp_path / "passages.jsonl"), str(tmp_path / "avoid.jsonl")

    def summarise(body):
        number = int(body["messages"][0]["content"].split("Passage ")[1].split()[0])
        if number == 4:
            return reply(completion("A summary that is c", finish_reason="length"))
        return reply(completion("So long. " * 50 if number == 5 else f" About {number}. \n"))

    server.replies = [summarise]
    output = tmp_path / "tldr.jsonl"
    grow(tldr, str(output))
    assert len(server.asked) == 30
    found = rows(output)
    assert [row["output"] for row in found] == [f"About {n}." for n in range(30) if n not in (4, 5)]
    assert found[0]["instruction"].endswith("0th thing.") and found[0]["passage"] == "passages.jsonl:1"
    assert [(row["row"].get("passage"), row["reason"]) for row in rows(tmp_path / "tldr.rejected.jsonl")] == [
        ("passages.jsonl:31", "repeats a passage"),
        ("passages.jsonl:32", "stands in the evaluation set"),
        ("passages.jsonl:5", "cut off at max_tokens"),
        ("passages.jsonl:6", "not shorter than the passage"),
    ]
    assert "0 requests to go" in plan(tldr, str(output))
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in passages[:20]))
    (tmp_path / "tldr.rejected.jsonl").unlink()  # its first rows are no more
    assert "at least 0 requests to go" in plan(tldr, str(output))
    grow(tldr, str(output))
    assert len(server.asked) == 30 and len(rows(output)) == 28


@pytest.fixture
def self_instruct(config, tmp_path):
    grown = runpy.run_path(str(CONFIGS / "self_instruct.py"))["get_config"]()
    for key in ("url", "model", "key", "concurrency", "first_wait", "timeout", "price"):
        grown[key] = config[key]
    grown.tokens_per_minute = grown.requests_per_minute = 0.0
    grown.send_seed, grown.target, grown.window = True, 40, 4
    seeds = (
        {"instruction": f"Do thing {n} of {n * n} well", "instances": [{"input": "", "output": f"Done {n}."}]}
        for n in range(8)
    )
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    grown.seeds, grown.avoid = str(tmp_path / "seeds.jsonl"), "none"
    return grown


WORDS = [first + last for first in "bdfgklmnprst" for last in ("ale", "one", "ush", "ick", "arp")]


def invent(body):
    """Eight tasks, some of them alike; depends on what was shown."""
    random = Random(f"{body['seed']} {len(body['messages'][0]['content'])}")
    tasks = []
    for _ in range(8):
        about = random.choice(["<noinput>", "None", "a, b\nc"])
        words = " ".join(random.sample(WORDS, 6))
        words = random.choice([words, "Do thing 3 of 9 very well", f"Draw an image of {words}"])
        tasks.append(
            f"### {len(tasks) + 1}.\nInstruction: {words}\nInput: {about}\nOutput: So {words}.\nInput: x is kept."
        )
    return "\n\n".join(tasks)


def test_self_instruct_grows_on_what_it_grew_and_does_so_exactly(server, self_instruct, rows, tmp_path):
    random = Random(0)
    server.replies = [lambda body: (*reply(completion(invent(body)))[:3], random.uniform(0, 0.03))]
    grow(self_instruct, str(tmp_path / "one.jsonl"))
    shown = [request["messages"][0]["content"] for request in server.asked]
    found = rows(tmp_path / "one.jsonl")
    assert len(found) == 40 and any(found[0]["output"] in text for text in shown[4:])
    assert all("\n\na, b\nc" in row["instruction"] or "\n" not in row["instruction"] for row in found)
    assert found[0]["output"].endswith(".\nInput: x is kept.")
    reasons = {row["reason"] for row in rows(tmp_path / "one.rejected.jsonl")}
    assert reasons == {"too much like another", "asks for what no text can be"}
    # A start that was cut short twice, with another number of requests at once, comes to the same.
    for target, concurrency in ((9, 1), (25, 3), (40, 16)):
        self_instruct.target, self_instruct.concurrency = target, concurrency
        grow(self_instruct, str(tmp_path / "two.jsonl"))
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()


def test_a_grown_file_is_a_file_of_prompts(server, config, self_instruct, rows, tmp_path):
    from imitation_jax.teacher.collect import collect

    server.replies = [lambda body: reply(completion(invent(body)))]
    grow(self_instruct, str(tmp_path / "grown.jsonl"))
    server.replies = [Tally().reply]
    collect(config, str(tmp_path / "grown.jsonl"), str(tmp_path / "answers.jsonl"))
    asked = {row["id"]: row["instruction"] for row in rows(tmp_path / "answers.jsonl")}
    assert asked == {row["id"]: row["instruction"] for row in rows(tmp_path / "grown.jsonl")}
