"""Data, from what was collected to what a student is trained on.

`prepare.py` takes raw files through `sources/` (a file a format) and `cleaning/` (a file a step) to dialogues.jsonl and
a tfds dataset (`builder.py`), with a data card (`card.py`); `input/` makes packed batches of that.
`heldout.py` selects prompts to evaluate with, by `nearest.py`; `evaluation_items.py` finds test questions in training
data, by `ngrams.py`. File formats: `dialogues.py`, `prompt_files.py`, `answer_files.py`, `benchmark_rows.py`.
"""
