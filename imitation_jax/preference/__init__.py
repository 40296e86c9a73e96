"""Which of two answers is better: by an LLM judge, by people, and how far the two agree.

- What is the judge asked, and what counts as its verdict? `judge_prompts.py`, `verdicts.py`.
- How are replies asked for, and verdicts of others read? `llm_judge.py`, `annotations.py`.
- What numbers come of votes? `win_rates.py`, `agreement.py`; their files: `result_files.py`; the report's lines:
  `report_rows.py`; what each setting changes: `config.py`.
- The human evaluation is the folder `rating/`.

To add a wording: one entry in `judge_prompts.WORDINGS`. To add a form of verdict: its ending there, and its reading in
`verdicts.read`.
"""
