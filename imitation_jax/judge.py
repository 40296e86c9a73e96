"""Compares two answer files by an LLM, or counts verdicts that are there already.

    python -m imitation_jax.judge --config=configs/judge.py --config.model=NAME --answers_a=FILE --answers_b=FILE \\
        --workdir=RUN
    python -m imitation_jax.judge --config=configs/judge.py:tone --config.model=NAME --answers_a=FILE --workdir=RUN
    python -m imitation_jax.judge --verdicts=annotations.json --answers_a=model.json --answers_b=baseline.json

The judge is any OpenAI-compatible API; its key stands in the environment variable that config.key names. It sees each
pair in both orders, and a pair has a vote where it is of one mind; nonsense, refusals, contradictions and what was cut
off are counted by their reason and are never a vote. Every reply is kept in config.cache: the same command goes on
after anything and asks nothing twice (but refusals with --config.retry_refused). The config's budget, never passed,
covers all that was ever asked of this model with this cache.

Printed are, with 95% intervals, how often A wins (a tie is half a win), the rate at equal length, ties, how often the
verdict turns with the order, how often the answer shown first and the longer answer is preferred. With --workdir they
stand in WORKDIR/eval/<A>/judge.json (tone.json), each verdict in the .samples.jsonl beside it.

--verdicts takes alpaca_eval's annotations (A is generator_2), Vicuna's reviews of 2023 (A is the second answer) or the
samples of an earlier judge; answer files with it only tell the lengths.
"""

import json

from imitation_jax.core import command

CONFIG = command.define_config("configs/judge.py", unless="verdicts")
ANSWERS_A = command.define_string("answers_a", "", "Answer file of the model that is judged.")
ANSWERS_B = command.define_string("answers_b", "", "Answer file of the model that it is compared with.")
VERDICTS = command.define_string("verdicts", "", "Count the verdicts in this file; nobody is asked.")
WORKDIR = command.define_string("workdir", "", "Folder of the results, local or gs://; none are filed without.")
JSON = command.define_boolean("json", "Print one JSON object, rates in percent, in place of the table.")
DRY_RUN = command.define_boolean("dry_run", "Only say how many questions that is and what they cost.")


def main() -> int:
    from imitation_jax.preference import llm_judge, result_files

    if VERDICTS.value and DRY_RUN.value:
        raise ValueError("--dry_run: --verdicts asks nobody")
    files = (ANSWERS_A.value, ANSWERS_B.value, WORKDIR.value)
    if VERDICTS.value:
        result = llm_judge.from_verdicts(VERDICTS.value, *files)
    elif DRY_RUN.value:
        print(llm_judge.plan(CONFIG.value, *files[:2]))
        return 0
    else:
        result = llm_judge.judge(CONFIG.value, *files)
    print(json.dumps(result_files.percentages(result)) if JSON.value else result_files.table(result))
    return 0


if __name__ == "__main__":
    command.run(main)
