"""Scoring and generation of token sequences with one model: requests.py says what can be asked, engine.py answers it."""
