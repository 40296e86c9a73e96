"""Our reading of sentencepiece models against the sentencepiece library on real texts."""

import io

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

from imitation_jax.tokenizers.sentencepiece import bpe_from_pieces, load_sentencepiece, merges_by_score
from imitation_jax.tokenizers.tokenizer import Tokenizer


def test_llama_equals_sentencepiece_but_for_runs_of_spaces(lent, llama, sharegpt_texts):
    """transformers 5, which the `.model` reader follows, merges runs of spaces in another order (merges_by_id)."""
    texts = [text for text in sharegpt_texts[::6] if not any(token in text for token in llama.special_token_texts)]
    texts = [text for text in texts if "  " not in text and not text.startswith((" ", "▁"))]
    processor = SentencePieceProcessor(model_file=str(lent("tokenizers/llama_tokenizer.model")))
    assert len(texts) > 1_000
    # Indices, not texts: a failure must not print what people wrote.
    pairs = enumerate(zip(llama.encode_batch(texts), processor.encode(texts), strict=True))
    assert [i for i, (ours, theirs) in pairs if ours != theirs] == []


def test_merges_by_score_equal_sentencepiece(lent, sharegpt_texts):
    path = lent("tokenizers/llama_tokenizer.model")
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    tokenizer = Tokenizer(bpe_from_pieces(pieces, {}, merges_by_score(pieces)))
    texts = [text for text in sharegpt_texts[::6] if not text.startswith((" ", "▁")) and "<s>" not in text]
    texts = [text for text in texts if "</s>" not in text]
    theirs = SentencePieceProcessor(model_file=str(path)).encode(texts)
    pairs = enumerate(zip(tokenizer.encode_batch(texts), theirs, strict=True))
    assert [i for i, (ours, theirs) in pairs if ours != theirs] == []


@pytest.fixture(scope="module")
def corpus():
    words = "the quick brown fox jumps over a lazy dog while 12 wizards boxed 345 jars of sphinx quartz".split()
    return [" ".join(words[(i * k) % len(words)] for k in range(1, 9)) for i in range(1, 200)]


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_trained_models(tmp_path, corpus, model_type, byte_fallback):
    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=out,
        vocab_size=304 if byte_fallback else 48,
        model_type=model_type,
        byte_fallback=byte_fallback,
        user_defined_symbols=["<sep>"],
        minloglevel=2,
    )
    path = tmp_path / "small.model"
    path.write_bytes(out.getvalue())
    tokenizer = load_sentencepiece(path)
    processor = SentencePieceProcessor(model_proto=out.getvalue())
    # Default normalisation: NFKC and one space for many; é and the emoji are unknown to the pieces.
    for text in [*corpus[:50], "  the   fox ", "ﬁve é 🤗 wizards", "QUARTZ", ""]:
        assert tokenizer.encode(text) == processor.encode(text), repr(text)
    assert tokenizer.vocab_size == processor.vocab_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.token_to_id("<sep>") in tokenizer.encode("fox <sep> dog")


def test_word_models_are_refused(tmp_path, corpus):
    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=out, vocab_size=20, model_type="word", minloglevel=2
    )
    (tmp_path / "word.model").write_bytes(out.getvalue())
    with pytest.raises(ValueError, match=r"word\.model: sentencepiece model_type WORD is not supported"):
        load_sentencepiece(tmp_path / "word.model")
