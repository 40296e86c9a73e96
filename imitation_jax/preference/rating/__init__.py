"""The human evaluation: several people say which of two anonymous answers is better.

- What is rated? `items.py`: pairs of two answer files, with attention checks. Where is it kept? `database.py`.
- How do people rate? `rater_app.py` serves the page; `mturk.py` writes and reads Mechanical Turk's files.
- How is an answer shown? `rendering.py`: markdown as HTML in which nothing runs.
- What comes of it? `human_result.py` writes `eval/<model>/human.json`.
"""
