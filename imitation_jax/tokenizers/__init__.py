"""Tokenizers and chat templates.

To add a file format: a module with `load_NAME(path) -> Tokenizer`, which builds the Rust tokenizer and hands it to
`tokenizer.Tokenizer`, and one line in `tokenizer.load_tokenizer`, by file name or ending. Ids must equal those of
transformers: add the files to `tests/tokenizers/make_oracles.py`.
"""
