"""Evaluation: what is asked of a model, how it is judged, and what is written down.

- What is a task, and how does one add one? `task.py` and the head of `tasks/`; they share `choices.py`,
  `generations.py`, `short_answers.py`, `shots.py`, `prompts.py` and `by_item.py`.
- What happens in a start? `runner.py`, from top to bottom; `questions.py` chooses and reads, `engines.py` loads.
- Which settings make a result another one? `config.py` and each task's KEYS; `results.py` compares by them.
- Where are intervals, tests and differences? `statistics.py`, for all packages; `result_tables.py` prints tables.
"""
