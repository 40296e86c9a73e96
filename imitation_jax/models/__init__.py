"""Models: families of decoders, their kernels and caches, and every format that weights come in.

decoder.py holds what all families share, families/ one module for each (its head says how to add one), kernels/ one for
each platform's own way to compute a part (likewise), attention.py and kv_cache.py who sees what. load.py reads and
writes a whole model by its source: huggingface.py, gguf.py and checkpoint.py are the formats, loaded_model.py is what
comes out. Scoring, decoding and the train step need none of the formats' libraries.
"""
