"""Scoring and generation of tokens with one model: requests.py says what can be asked, engine.py answers it."""
