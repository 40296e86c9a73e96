"""Planning: compiles a training config's programs for TPU slices that are not there, and says what they need.

target.py is what is planned; programs.py lowers its programs, which parallel/executables.py compiles once;
collectives.py reads what they send and roofline.py bounds their time; run_length.py says how many steps a run has and
fit.py looks for what fits; plan.py puts it together, sizes.py plans all configs, plan_tables.py prints.
"""
