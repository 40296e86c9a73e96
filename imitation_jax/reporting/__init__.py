"""Reporting: tables, figures and pages from result files alone; starts no run and loads no model.

model_results.py and study_file.py read the files; changes.py compares two models, findings.py judges a student by that
and trends.py a grid; report_tables.py, figures.py, scaling.py and cards.py lay out; page.py writes it all. A task's
lines come from its own module (`ROWS` in evaluation/tasks/), so a new task is in the report without a change here.
"""
