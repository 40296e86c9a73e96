"""Imitation of proprietary language models in JAX: collect, fine-tune, measure."""
