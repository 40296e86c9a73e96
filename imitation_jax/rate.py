"""The human evaluation as a web page: which of two anonymous answers is better, by several raters.

    python -m imitation_jax.rate --answers_a=RUN/eval/student/answers.jsonl --answers_b=teacher.jsonl --db=ratings.db

Open http://127.0.0.1:8080/, or let others: with --host=0.0.0.0 and the environment variable IMITATION_RATING_CODE, a
code that raters are asked for. Every vote is in --db at once; start the same command again to go on. Then

    python -m imitation_jax.rate --db=ratings.db --export --workdir=RUN

writes RUN/eval/<generator of a>/human.json: the majority's votes, raters' agreement, and people beside the LLM judge.

For Mechanical Turk, --mturk=DIR writes DIR/layout.html (a project's design layout), DIR/hits.csv (a batch's input) and
DIR/results.csv (the votes so far, as a batch's results), and --mturk_results=FILE adds a batch's results to --db.
"""

import os

from imitation_jax.core import command

ANSWERS_A = command.define_string("answers_a", "", "Answers to be judged: JSON Lines, or alpaca_eval's JSON.")
ANSWERS_B = command.define_string("answers_b", "", "The opponent's answers to the same prompts.")
DB = command.define_string("db", None, "SQLite file of the ratings.", required=True)
HOST = command.define_string("host", "127.0.0.1", "Address to serve; others than this machine's need a code.")
PORT = command.define_integer("port", 8080, "0 takes a free one; the log says which.")
RATINGS = command.define_integer("ratings", None, "Ratings an item, each by another rater (default 3).")
CHECK_EVERY = command.define_integer(
    "check_every", None, "One in so many pairs is an attention check, 0 for none (default 10)."
)
GUIDELINES = command.define_string("guidelines", None, "Markdown file for the raters, instead of ours.")
SEED = command.define_integer("seed", None, "Draws the attention checks (default 0).")
EXPORT = command.define_boolean("export", "Write the result to --workdir.")
WORKDIR = command.define_string("workdir", "", "Folder of a run, local or gs://, for --export.")
JUDGE = command.define_string("judge", "", "Samples of `judge` on the same answers, unless they are in --workdir.")
MTURK = command.define_string("mturk", "", "Folder to write for Mechanical Turk.")
MTURK_RESULTS = command.define_string("mturk_results", "", "A batch's results, to be added to --db.")


def main() -> int:
    try:
        from imitation_jax.preference.rating import human_result, items, mturk, rater_app
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "markdown_it", "pydantic"):
            raise
        raise OSError("the rating page needs starlette; pip install 'imitation_jax[serve]'") from None

    if EXPORT.value and not WORKDIR.value:
        raise ValueError("--workdir is required with --export")
    settings = {
        "ratings": RATINGS.value,
        "check_every": CHECK_EVERY.value,
        "seed": SEED.value,
        "guidelines": GUIDELINES.value,
    }
    store = items.open_store(DB.value, ANSWERS_A.value, ANSWERS_B.value, settings)
    if MTURK_RESULTS.value:
        print(mturk.read_results(store, MTURK_RESULTS.value))
    if MTURK.value:
        print(mturk.write(store, MTURK.value))
    if EXPORT.value:
        path, text = human_result.write(store, WORKDIR.value, JUDGE.value)
        print(f"{text}\n\nresult: {path}")
    if not (MTURK_RESULTS.value or MTURK.value or EXPORT.value):
        rater_app.serve(store, HOST.value, PORT.value, os.environ.get(rater_app.CODE) or None)
        print(human_result.progress(store))
    store.close()
    return 0


if __name__ == "__main__":
    command.run(main)
