import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from imitation_jax.evaluation.tasks import human_eval
from imitation_jax.sandbox import sandbox
from imitation_jax.sandbox.sandbox import PASSED, TIMED_OUT

DATA = "human_eval/HumanEval.jsonl.gz"
ROW = {
    "task_id": "test/0",
    "prompt": "def return1():\n",
    "canonical_solution": "    return 1",
    "test": "def check(candidate):\n    assert candidate() == 1",
    "entry_point": "return1",
}


@pytest.fixture(scope="module")
def box():
    try:
        return sandbox.find_sandbox(sandbox.Limits())
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def problems(tmp_path, box, config_of, write):
    """`problems(row, ..., **overrides)` is a config over those rows that may execute."""

    def config(*rows, **overrides):
        data = write(tmp_path / "problems.jsonl", *rows)
        return config_of("human_eval", data=data, execute_code=True, **overrides)

    return config


def official(lent, config_of, **overrides):
    return human_eval.read(config_of("human_eval", data=str(lent(DATA)), execute_code=True, **overrides))


def verdicts(box, items, complete):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda item: box.run(human_eval.program(item, complete(item), False)), items))


@pytest.mark.slow
def test_canonical_solutions_score_one_and_empty_completions_nothing(lent, box, config_of, scripted, answer_all):
    config = config_of("human_eval", data=str(lent(DATA)), execute_code=True)
    items = human_eval.read(config)
    assert len(items) == 164
    engine = scripted(writes={item["prompt"]: item["canonical_solution"] for item in items})
    rows, found = answer_all(human_eval, engine, config)
    assert [row["verdicts"] for row in rows] == [[PASSED]] * 164
    assert found["metrics"]["pass@1"]["value"] == 1.0
    rows, found = answer_all(human_eval, scripted(), config)
    assert found["metrics"]["pass@1"]["value"] == 0.0
    assert found["counts"]["programs_failed"] == found["counts"]["completions_empty"] == 164


def test_some_canonical_solutions_pass_and_empty_completions_fail(lent, box, config_of):
    items = official(lent, config_of)[:164:20]
    assert verdicts(box, items, lambda item: item["canonical_solution"]) == [PASSED] * len(items)
    assert all(verdict.startswith("failed: ") for verdict in verdicts(box, items, lambda item: ""))


def test_the_official_example_samples_end_as_they_should(lent, box):
    quick = sandbox.Sandbox(box.kind, sandbox.Limits(cpu_seconds=1, wall_seconds=4.0))
    lines = lent("human_eval/example_samples.jsonl").read_text().splitlines()
    samples = [json.loads(line)["completion"] for line in lines]
    item = human_eval.parse("example", ROW)
    found = [quick.run(human_eval.program(item, sample, False)) for sample in samples]
    assert found[0].startswith("failed: ") and found[2] == "failed: EOFError: EOF when reading a line"
    assert [found[1], *found[3:]] == [TIMED_OUT, PASSED, PASSED, PASSED]


@pytest.mark.parametrize(
    "completion",
    [
        "    return 2",
        "    return 1\nimport sys\nsys.exit(0)",
        "    return 1\nimport os\nos._exit(0)",
        "    import sys\n    sys.exit(0)",
        "    return 2\ndef check(candidate):\n    pass",
        "    return 2\nx = '''",
        "    return 2\nif True:\n  def check(candidate): pass\n  '''",
        "    return 1\nimport sys\nsys.stdout.close()",
    ],
)
def test_no_completion_gets_round_its_tests(box, completion):
    tests = ROW["test"].replace("assert", "'''A docstring'''\n    assert")  # which could end a text that was left open
    assert box.run(human_eval.program(human_eval.parse("", ROW | {"test": tests}), completion, False)) != PASSED


def test_the_prompt_is_continued_as_it_is_and_cut_at_the_papers_stops(problems, scripted, answer_all):
    engine = scripted(writes={"return1": "    return 1\n\ndef return2():\n    return 2"})
    [row], found = answer_all(human_eval, engine, problems(ROW))
    assert engine.asked == [ROW["prompt"]]
    [request] = engine.requests
    assert tuple(request.stop) == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (request.temperature, request.max_new_tokens) == (0.0, 512)
    assert (row["id"], row["prediction"], row["gold"]) == ("test/0", "    return 1\n", "    return 1")
    assert (row["correct"], row["passed"], row["verdicts"]) == (True, True, [PASSED])
    assert found["metrics"] == {"pass@1": found["metrics"]["pass@1"]}
    assert found["metrics"]["pass@1"]["value"] == 1.0
    assert human_eval.text(human_eval.parse("", ROW)) == ROW["prompt"]


def test_every_completion_and_verdict_is_kept(problems, scripted, answer_all):
    rows = [ROW | {"task_id": f"test/{k}", "prompt": f"# {k}\ndef return1():\n"} for k in range(3)]
    engine, texts = scripted(), ["    return 1", "    return 2", "    while True: pass", "    return 1"]
    order = itertools.cycle(texts)
    generate = engine.generate

    def one_after_another(requests, on_result):
        def other(index, generation):
            on_result(index, type(generation)(next(order), generation.ids, "stop", -1.0))

        return generate(requests, other)

    engine.generate = one_after_another
    config = problems(*rows, samples=4, temperature=0.8, top_p=0.95, k="1,2,100", timeout=1, seed=7)
    samples, found = answer_all(human_eval, engine, config)
    for sample in samples:
        assert sample["completions"] == texts
        assert [verdict.split(":")[0] for verdict in sample["verdicts"]] == [PASSED, "failed", TIMED_OUT, PASSED]
        assert (sample["correct"], sample["passed"]) == (True, 0.5)
    assert {key: metric["value"] for key, metric in found["metrics"].items()} == pytest.approx(
        {"pass@1": 0.5, "pass@2": 5 / 6}
    )
    assert found["counts"]["programs_timed_out"] == 3 and found["counts"]["programs_passed"] == 6
    assert len({request.seed for request in engine.requests}) == 12
    # a completion draws alike whatever else is asked
    alone = scripted()
    human_eval.ask(alone, human_eval.read(config)[2:], config, lambda sample: None)
    assert [request.seed for request in alone.requests] == [request.seed for request in engine.requests[8:]]


def test_pass_at_k_is_the_share_of_draws_with_a_pass():
    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c <= n and k <= n:
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert human_eval.pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert human_eval.pass_at_k(200, 3, 100) == pytest.approx(1 - (100 * 99 * 98) / (200 * 199 * 198))


def test_chat_asks_in_the_template_and_runs_what_is_in_the_fence(problems, scripted, answer_all):
    row = ROW | {"prompt": "import math\n\ndef one():\n    return 1\n\ndef return1():\n    ''' One. '''\n"}
    answer = "Sure!\n```python\ndef return1():\n    return one() + int(math.sin(0))\n```\nDone: `return1()`."
    engine = scripted(writes={"return1": answer})
    [sample], found = answer_all(human_eval, engine, problems(row, chat=True))
    assert engine.asked[0].endswith(
        "<|im_start|>user\nRead the following function signature and docstring, and fully implement the function "
        "described. Your response should only contain the code for this function.\n"
        + row["prompt"]
        + "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert engine.requests[0].stop == ()
    assert sample["prediction"] == answer and sample["verdicts"] == [PASSED]


def test_code_is_taken_from_the_fence_that_defines_the_function():
    def extract(text):
        return human_eval.extract(text, "f")

    assert extract("```\nx = 1\n```\nand\n```python\ndef f():\n    pass\n```\n") == "def f():\n    pass\n"
    assert extract("```py\nreturn 3\n```") == "return 3\n"
    assert extract("Well\n```python\ndef f():\n    ret") == "def f():\n    ret"
    assert extract("def f():\n    pass\n```\nThis function passes.") == "def f():\n    pass\n"
    assert extract("def f(): pass") == "def f(): pass"
    assert extract("no `code` at all") == "no `code` at all"
    item = human_eval.parse("", ROW)
    assert human_eval.program(item, "```\n    return 1\n```", True)[0] == "def return1():\n    return 1\n"
    assert human_eval.program(item, "```\ndef return1(): return 1\n```", True)[:2] == ["", "def return1(): return 1\n"]


def test_helpers_of_the_official_prompts_stay_in_chat(lent, box, config_of):
    items = {item["id"]: item for item in official(lent, config_of)}
    for number in (10, 32, 38, 50):
        item = items[f"HumanEval/{number}"]
        head, body = item["prompt"].split(f"def {item['entry_point']}")
        answer = f"```python\ndef {item['entry_point']}{body}{item['canonical_solution']}\n```"
        assert box.run(human_eval.program(item, answer, True)) == PASSED


def test_nothing_runs_unless_asked_for(lent, config_of):
    with pytest.raises(ValueError, match="config.execute_code is off.*--config.execute_code=True") as error:
        human_eval.read(config_of("human_eval", data=str(lent(DATA))))
    assert "\n" not in str(error.value)


def test_refused_where_there_is_no_sandbox(problems, monkeypatch, tmp_path):
    config = problems(ROW)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="install bubblewrap"):
        human_eval.read(config)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"samples": 0}, "config.samples"),
        ({"samples": 5}, "config.temperature"),
        ({"k": "1,x"}, "config.k"),
        ({"k": "10,100"}, "needs config.samples=10"),
        ({"top_p": 0.0}, "config.top_p"),
        ({"timeout": 0}, "config.timeout"),
    ],
)
def test_bad_settings_are_named(config_of, overrides, reason):
    with pytest.raises(ValueError, match=reason):
        human_eval.read(config_of("human_eval", **overrides))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "x"}, "'task_id'"),
        (ROW | {"test": None}, "'test'"),
        (ROW | {"entry_point": "f(); g"}, "'entry_point'"),
        (ROW, "stands already"),
    ],
)
def test_bad_rows_are_named(problems, row, reason):
    with pytest.raises(ValueError, match=f"problems.jsonl:2: .*{reason}"):
        human_eval.read(problems(ROW, row))


def test_the_variant_tells_every_k_of_the_paper(config_of):
    assert human_eval.ks(config_of("human_eval", "pass_at_k")) == [1, 10, 100]
    with pytest.raises(ValueError, match="pass_at_k"):
        config_of("human_eval", "pass_at_1")
