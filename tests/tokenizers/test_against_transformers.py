"""Live comparison with transformers, over every text and conversation of the lent sample."""

import shutil

import pytest
from make_oracles import BLOCKS, TEXTS

from imitation_jax.tokenizers.chat_template import ChatTemplate, load_template

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hf_llama(lent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    shutil.copyfile(lent("tokenizers/llama_tokenizer.model"), folder / "tokenizer.model")
    return transformers.LlamaTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def hf_smollm2(smollm2_gguf):
    return transformers.AutoTokenizer.from_pretrained(str(smollm2_gguf.parent), gguf_file=smollm2_gguf.name)


@pytest.fixture(scope="module")
def hf_gpt2(gpt2_folder):
    return transformers.GPT2Tokenizer.from_pretrained(gpt2_folder)


def mismatches(ours, theirs):
    """Indices, not texts: a failure must not print what people wrote."""
    return [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]


@pytest.mark.parametrize("kind", ["llama", "smollm2", "gpt2"])
def test_ids(request, sharegpt_texts, tmp_path, kind):
    ours, theirs = request.getfixturevalue(kind), request.getfixturevalue(f"hf_{kind}")
    texts = sharegpt_texts + TEXTS
    ours.save(tmp_path)
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert exported.chat_template == ours.chat_template
    for special in (False, True):
        ids = ours.encode_batch(texts, add_special_tokens=special)
        assert mismatches(ids, theirs(texts, add_special_tokens=special)["input_ids"]) == []
        assert mismatches(ids, exported(texts, add_special_tokens=special)["input_ids"]) == []


def test_chat(smollm2, hf_smollm2, sharegpt):
    template = load_template("model", smollm2)
    blocks = ChatTemplate(BLOCKS, smollm2)
    for i, messages in enumerate(sharegpt):
        assert template.render(messages) == hf_smollm2.apply_chat_template(messages, tokenize=False), i
        assert template.tokenize(messages)[0] == hf_smollm2.apply_chat_template(messages)["input_ids"], i
        prompt = hf_smollm2.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert template.prompt_ids(messages) == prompt, i
        if i % 10 == 0 and any(message["role"] == "assistant" for message in messages):
            theirs = hf_smollm2.apply_chat_template(messages, chat_template=BLOCKS, return_assistant_tokens_mask=True)
            assert blocks.tokenize(messages) == (theirs["input_ids"], theirs["assistant_masks"]), i
