import jax
import pytest
from absl import logging

from imitation_jax.core import json_rows
from imitation_jax.inference.engine import generate_texts
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel
from imitation_jax.tokenizers.chat_template import ChatTemplate
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training.config import get_config
from imitation_jax.training.samples import make_sampler

CONFIG = llama.LlamaConfig(512, 32, 64, 2, 4, 2, 8, 128)
TEMPLATE = """\
{%- for message in messages %}
    {%- if 'fail' in message.content %}{{ raise_exception('no such words') }}{% endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"""


@pytest.fixture(scope="module")
def model(tiny_tokenizer):
    tokenizer = load_tokenizer(tiny_tokenizer)
    params = decoder.init(CONFIG, jax.random.key(0))
    return LoadedModel(llama, CONFIG, params, tokenizer, ChatTemplate(TEMPLATE, tokenizer))


@pytest.fixture
def sampler(tmp_path):
    """`sampler("question", ...)` samples dialogues that start with these."""

    def make(*questions):
        path = tmp_path / "dialogues.jsonl"
        talks = [[{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}] for text in questions]
        path.write_text("".join(json_rows.line({"id": str(k), "messages": talk}) for k, talk in enumerate(talks)))
        config = get_config()
        config.data.path = str(path)
        config.evaluate.samples = 3
        config.evaluate.max_new_tokens = 4
        return make_sampler(config, generate_texts)

    return make


def test_the_first_user_turns_are_answered(model, sampler):
    numbers, texts = sampler("one river", "two rivers", "three rivers", "a fourth")(model, 10)
    assert numbers == {} and list(texts) == ["sample/0", "sample/1", "sample/2"]
    assert texts["sample/1"].startswith("two rivers\n\n---\n\n")


def test_what_cannot_be_asked_is_left_out_and_said_once(model, sampler, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    sample = sampler("water " * 200, "fail here", "one river")
    for step in (1, 2):
        _, texts = sample(model, step)
        assert [text.split("\n")[0] for text in texts.values()] == ["one river"]
    assert len(said) == 2
    assert "do not fit the model's context" in said[0] and "no such words" in said[1]


def test_with_nothing_to_ask_training_goes_on(model, sampler):
    assert sampler("fail here")(model, 1) == ({}, {})
