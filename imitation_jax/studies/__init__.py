"""Studies: grids of runs, from a config to the files that a report is made of.

config.py says what a study's config holds, layout.py what that comes to, jobs.py which commands do it. done.py reads
whether a job is done, status.py how far it is. study.py goes through the jobs: here (local_runner.py), or by one of
launchers/, as study_session.py starts commands; live_table.py shows them. An evaluation is added to a study by its
config in configs/eval/ and its name under config.evaluations.
"""
