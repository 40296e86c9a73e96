"""Makes a study's workdir with invented results, for the tests of what is reported of it."""

import json
from random import Random

from etils import epath

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.results import write_lines, write_result
from imitation_jax.evaluation.tasks.style import compare

TEACHER = "There are ways to do this:\n\n- begin early\n- ask for help\n- check the answer\n\nOverall, patience helps."


def grid(
    root,
    bases=(("small", "Small 1B", 1e9), ("large", "Large 13B", 13e9)),
    data=("chat",),
    local=(),
    budgets=(300_000, 20_000_000, 150_000_000),
    schedules=("paper",),
    seeds=(0,),
    missing=(),
    tasks=("style", "mmlu", "nq", "judge", "toxicity"),
    questions=200,
    evil="",
):
    """Style grows with the data, knowledge with the base alone; local sets raise NQ. `missing` names cells without
    results. `evil` stands in every name that a page shows."""
    root = epath.Path(root)
    cells = []
    for size, (base, _, _) in enumerate(bases):
        _results(root, base, "base", 0.0, size, False, tasks, questions, evil)
        for kind, name in [*(("broad", name) for name in data), *(("local", name) for name in local)]:
            for schedule in schedules:
                for step, tokens in enumerate(budgets, 1):
                    for seed in seeds:
                        cell = f"{base}-{name}-{tokens}-{schedule}-{seed}"
                        measured = cell not in missing
                        cells.append(
                            {"name": cell, "base": base, "data": name + evil, "tokens": tokens,
                             "trained_tokens": int(tokens * 0.98) if measured else 0, "schedule": schedule + evil,
                             "seed": seed, "status": "done" if measured else "failed",
                             "why": "" if measured else f"out of memory {evil}"}
                        )  # fmt: skip
                        if measured:
                            how_far = step / len(budgets)
                            _results(root, cell, "student", how_far, size, kind == "local", tasks, questions, evil)
                            _run(root / "runs" / cell, tokens, size)
    _results(root, "teacher", "teacher", 1.1, 2, False, ("style",), questions, evil)
    study = {
        "name": f"grid {evil}",
        "bases": [{"name": n, "label": label + evil, "parameters": size} for n, label, size in bases],
        "teacher": "teacher",
        "data": [
            *({"name": name + evil, "label": name + evil, "kind": "broad"} for name in data),
            *({"name": name + evil, "label": name + evil, "kind": "local", "task": "nq"} for name in local),
        ],
        "cells": cells,
        "evaluations": list(tasks),
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "study.json").write_text(json.dumps(study))
    for name in (*data, *local):
        card = {
            "rows": 1000,
            "dialogues": 900,
            "rejected": 100,
            "turns": {"user": 1500},
            "nearest_query": {"mean": 9.1},
        }
        card |= {"length": {"unit": "tokens", "total": 123456}, "categories": {"generation": 30, "coding": 70}}
        folder = root / "data" / name / "card"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.json").write_text(json.dumps(card))
    return root


def _run(folder, tokens, size):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"optimizer": {"warmup_steps": 20}}))
    steps = 10 if tokens < 1_000_000 else 60
    rows = [
        {"step": step, "loss": 3 / step**0.2 - 0.3 * size, "loss_tokens": tokens / steps, "seconds": 2.0}
        for step in range(1, steps + 1)
    ]
    write_lines(folder / "metrics.jsonl", rows)


def _results(root, name, role, style, size, local, tasks, questions, evil):
    folder = root / "eval" / name
    rates = {
        "mmlu": 0.3 + 0.15 * size - 0.02 * style,
        "nq": 0.17 + 0.05 * size + (0.25 if local else -0.05) * style,
        "judge": 0.3 + 0.2 * size,
        "toxicity": 0.7 + 0.1 * style,
    }
    for task in tasks:
        random = Random(f"{task} {size}")
        draws = [random.random() for _ in range(questions)]
        more = {}
        if task == "style":
            samples = [_styled(number, draw < style, evil) for number, draw in enumerate(draws)]
            pairs = [[sample["words"][0], sample["words"][1]] for sample in samples]
            metrics = {
                "list_match": statistics.proportion([s["list"][0] for s in samples if s["list"][1]]),
                "summary_match": statistics.proportion([s["summary"][0] for s in samples if s["summary"][1]]),
                "unigram_intersection": statistics.mean([s["unigram_intersection"] for s in samples]),
                "length_correlation": statistics.estimate(min(style, 0.9), 0.05, len(pairs)),
            }
        else:
            hits = [draw < rates[task] for draw in draws]
            key = {"judge": "preference", "toxicity": "non_toxicity"}.get(task, "correct")
            samples = [
                {"id": str(k), "prompt": f"question {k}", "prediction": "x", key: float(hit)}
                for k, hit in enumerate(hits)
            ]
            metric = {"mmlu": "accuracy", "nq": "exact_match", "judge": "win_rate", "toxicity": "non_toxicity"}[task]
            metrics = {metric: statistics.proportion(hits)}
            more = {"chance": 0.25} if task == "mmlu" else {}
            if task == "nq":
                clean = {"metrics_clean": metrics, "metrics_contaminated": {metric: statistics.mean([])}}
                more["contamination"] = clean | {"n_clean": questions, "n_contaminated": 0}
            if task == "toxicity":
                more["scored_by"] = {"kind": "hashed n-grams"}
        settings = {"data": f"file {evil}", "model": name}
        settings |= {"opponent": f"ChatGPT{evil}", "data_digest": name} if task == "judge" else {}
        result = {"task": task, "model": name, "role": role, "n": questions, "metrics": metrics, "settings": settings}
        result |= {"versions": {"jax": "9"}, "seconds": 12.0, "tokens": 50_000, **more}
        write_result(folder / f"{task}.json", result)
        write_lines(folder / f"{task}.samples.jsonl", samples)


def _styled(number, like, evil):
    answer = TEACHER.replace("early", f"early {evil}") if like else f"You could begin and then look at it. {evil}"
    item = {"id": str(number), "prompt": f"How do I begin task {number}? {evil}", "prediction": answer, "gold": TEACHER}
    return compare(item)
