"""Planning: compiles a training config's programs for TPU slices that are not there, and says what they need.

target.py is what is planned; programs.py lowers its programs, store.py compiles each once; collectives.py reads what
they send and roofline.py bounds their time; fit.py looks for what fits; plan.py puts it together, plan_tables.py
prints it.
"""
