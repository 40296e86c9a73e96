"""What a teacher is asked for: answers to a file of prompts (collect.py), or data grown from examples (synthesis.py).

To add a kind of grown data: a module here with a class that is a `synthesis.Task` (tldr_synthetic.py is a short one),
its row in `synthesis.TASKS`, and a config in configs/teacher/ whose task is that row's name. A task says what a request
asks and reads its answer; asking, order, files, budget and going on after a kill are `synthesis.grow`'s.
"""
