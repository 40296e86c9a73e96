"""Dialogues -> packed batches: rendered and tokenised once, packed by a plan, mixed, read with Grain.

In this order: `token_cache.py` (a dataset's tokens as memory-mapped arrays), `budgets.py` (a subset by tokens),
`packing.py` (which piece stands in which row), `mixture.py` (how datasets alternate), `stream.py` (batches by number).
"""
