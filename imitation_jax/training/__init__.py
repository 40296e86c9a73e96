"""Training: loop.py is a run from config to checkpoints in the order in which it happens.

program.py is the jitted step of a config, made of step.py, loss.py and optimizer.py, which need jax, flax and optax
alone. What the loop calls every so many steps is an evaluator (`loop.Evaluator`), as validation.py and samples.py make.
"""
