"""Chat templates against the committed oracles, the place of the loss mask, the plain format, bad templates."""

import json
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from make_oracles import BLOCKS, DIALOGUES

from imitation_jax.tokenizers.chat_template import ChatTemplate, load_template

ORACLES = json.loads(Path(__file__).with_name("oracles.json").read_text(encoding="utf-8"))["dialogues"]
LLAMA2 = """{{ bos_token }}{% for m in messages %}\
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}\
{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}\
{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""


def masked(template, tokenizer, messages):
    """The text under the mask, one string a run of 1s."""
    ids, mask = template.tokenize(messages)
    assert len(ids) == len(mask)
    edges = [i for i, (a, b) in enumerate(pairwise([0, *mask, 0])) if a != b]
    return [tokenizer.decode(ids[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("i", range(len(DIALOGUES)))
def test_own_template_equals_the_oracles(smollm2, i):
    template, expected = load_template("model", smollm2), ORACLES[i]
    assert template.render(DIALOGUES[i]) == expected["text"]
    assert template.tokenize(DIALOGUES[i])[0] == expected["ids"]
    assert template.prompt_ids(DIALOGUES[i]) == expected["prompt_ids"]


@pytest.mark.parametrize("i", range(len(DIALOGUES)))
def test_generation_blocks_equal_the_oracles(smollm2, i):
    template, expected = ChatTemplate(BLOCKS, smollm2), ORACLES[i]
    assert template.render(DIALOGUES[i]) == expected["blocks_text"]
    assert template.tokenize(DIALOGUES[i]) == (expected["blocks_ids"], expected["blocks_mask"])


def test_mask_covers_words_and_end_markers_alone(smollm2):
    template = load_template("model", smollm2)
    assert masked(template, smollm2, DIALOGUES[1]) == [
        "An apple 🍎\n<|im_end|>",
        "A pear.\n\n- green\n- sweet<|im_end|>",
    ]
    assert masked(template, smollm2, DIALOGUES[2]) == []
    assert masked(template, smollm2, DIALOGUES[3]) == ["<|im_end|>"]
    assert template.end_marker == "<|im_end|>"
    assert template.stop_ids == {smollm2.eos_id}


def test_prompts_begin_the_dialogue(smollm2, llama):
    for template in (load_template("model", smollm2), load_template("plain", llama)):
        ids, mask = template.tokenize(DIALOGUES[1])
        for turn in (2, 4):
            prompt = template.prompt_ids(DIALOGUES[1][:turn])
            assert ids[: len(prompt)] == prompt
            assert (mask[len(prompt) - 1], mask[len(prompt)]) == (0, 1)


def test_first_message_may_be_the_assistants(smollm2):
    messages = [{"role": "assistant", "content": "I begin."}, *DIALOGUES[0]]
    assert masked(load_template("model", smollm2), smollm2, messages)[0] == "I begin.<|im_end|>"


def test_template_without_generation_prompt(llama):
    template = ChatTemplate(LLAMA2, llama)
    messages = DIALOGUES[1][1:]
    ids, _ = template.tokenize(messages)
    assert ids == llama.encode(template.render(messages))
    assert ids[0] == llama.bos_id
    assert masked(template, llama, messages) == ["An apple 🍎 </s>", "A pear.\n\n- green\n- sweet </s>"]
    assert template.stop_ids == {llama.eos_id}


def test_header_that_comes_with_the_answer_bears_no_loss(smollm2):
    source = "{% for m in messages %}[{{ m.role }}]: {{ m.content }}\n---\n{% endfor %}"
    template = ChatTemplate(source, smollm2)
    assert masked(template, smollm2, DIALOGUES[0]) == ["It is 4.\n---"]
    assert template.end_marker == "\n---"


def test_token_across_a_border_is_cut(smollm2):
    # "Q: hi A: " + "yes": tokenised whole, " yes" is one token, half prompt and half answer.
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content }}{% else %}"
        "{{ ' A: ' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} A: {% endif %}"
    )
    template = ChatTemplate(source, smollm2)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    prompt = template.prompt_ids(messages[:1])
    ids, mask = template.tokenize(messages)
    assert ids != smollm2.encode(template.render(messages))
    assert ids == prompt + smollm2.encode("yes<|im_end|>")
    assert mask == [0] * len(prompt) + [1] * (len(ids) - len(prompt))


def test_answer_that_begins_with_white_space(smollm2):
    # "\n " after "assistant" is one token of the whole text.
    template = load_template("model", smollm2)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "  yes"}]
    prompt = template.prompt_ids(messages[:1])
    ids, mask = template.tokenize(messages)
    assert ids == prompt + smollm2.encode("  yes<|im_end|>\n")
    assert masked(template, smollm2, messages) == ["  yes<|im_end|>"]
    assert ids != smollm2.encode(template.render(messages))


def test_cut_sentencepiece_text_stays_the_same_text(llama):
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content }}{% else %}"
        "{{ ' A: ' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} A: {% endif %}"
    )
    template = ChatTemplate(source, llama)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert llama.decode(template.tokenize(messages)[0]) == template.render(messages)
    assert masked(template, llama, messages) == ["yes</s>"]


def test_plain_format(llama):
    template = load_template("plain", llama)
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": ""},
    ]
    assert template.render(messages) == ("<s>BEGINNING OF CONVERSATION: USER: Hi GPT:Hello!</s>USER: Bye GPT:</s>")
    prompts = llama.encode("BEGINNING OF CONVERSATION: USER: Hi GPT:"), llama.encode("USER: Bye GPT:")
    answers = [*llama.encode("Hello!"), 2], [2]
    ids, mask = template.tokenize(messages)
    assert ids == [1, *prompts[0], *answers[0], *prompts[1], *answers[1]]
    assert mask == [0] * (1 + len(prompts[0])) + [1] * len(answers[0]) + [0] * len(prompts[1]) + [1]
    assert template.prompt_ids(messages[:1]) == [1, *prompts[0]]
    assert template.prompt_ids(messages[:3]) == [1, *prompts[0], *answers[0], *prompts[1]]
    assert template.stop_ids == {2}
    system = [{"role": "system", "content": "Be kind."}, *messages]
    assert template.render(system).startswith("<s>Be kind. USER: Hi GPT:Hello!</s>")
    with pytest.raises(ValueError, match="no place for a later system message"):
        template.render([*messages, system[0]])


def test_the_plain_format_answers_to_its_earlier_name(llama):
    assert load_template("lineage", llama).fingerprint == load_template("plain", llama).fingerprint


def test_pickled_templates_work(smollm2):
    for source in (smollm2.chat_template, BLOCKS):
        template = ChatTemplate(source, smollm2)
        copy = pickle.loads(pickle.dumps(template))
        assert copy.tokenize(DIALOGUES[1]) == template.tokenize(DIALOGUES[1])
        assert copy.fingerprint == template.fingerprint
    assert load_template("plain", smollm2).fingerprint != load_template("model", smollm2).fingerprint


def test_real_dialogues(smollm2, sharegpt):
    template = load_template("model", smollm2)
    for i, messages in enumerate(sharegpt[:100]):
        ids, mask = template.tokenize(messages)
        answers = [message["content"] + "<|im_end|>" for message in messages if message["role"] == "assistant"]
        # Only the row's number may be printed. Two answers in a row would touch, but the header lies between them.
        assert masked(template, smollm2, messages) == answers or any("\ufffd" in text for text in answers), i
        assert ids == smollm2.encode(template.render(messages)), i


def test_template_files(smollm2, tmp_path):
    (tmp_path / "a.jinja").write_text(BLOCKS)
    assert load_template(str(tmp_path / "a.jinja"), smollm2).source == BLOCKS
    with pytest.raises(FileNotFoundError, match="no such chat template"):
        load_template(str(tmp_path / "b.jinja"), smollm2)


def test_no_template(llama):
    assert llama.chat_template is None and load_template("model", llama) is None


def test_the_calendar_day_changes_nothing(llama):
    # As Llama 3.2's template does it.
    source = (
        "{% set day = '26 Jul 2024' %}"
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ day }}{% for m in messages %} {{ m.content }}{% endfor %}"
    )
    assert ChatTemplate(source, llama).render(DIALOGUES[0]).startswith("26 Jul 2024 ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\nb {% if %}", r"chat template, line 2: "),
        ("{{ messages[0]['content'] }}", "leaves out what the assistant says"),
        ("{{ nothing.at.all }}{{ messages[1].content }}", "'nothing' is undefined"),
        ("{{ messages[1].content + 1 }}", "can only concatenate str"),
        ("{{ messages.append(1) }}", "is unsafe"),
    ],
)
def test_bad_templates_fail_when_loaded(smollm2, source, message):
    with pytest.raises(ValueError, match=message) as error:
        ChatTemplate(source, smollm2)
    assert "\n" not in str(error.value)


def test_template_that_refuses_a_dialogue_says_why(llama):
    template = ChatTemplate(LLAMA2, llama)
    twice = [DIALOGUES[0][0], DIALOGUES[0][0]]
    with pytest.raises(ValueError, match="^chat template: Conversation roles must alternate user/assistant$"):
        template.tokenize(twice)


def test_template_that_rewrites_earlier_turns_has_no_mask(smollm2):
    # Answers but the last are left out of the text, as reasoning is by some templates.
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content if loop.last or m.role == 'user' else '...' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = ChatTemplate(source, smollm2)
    assert masked(template, smollm2, DIALOGUES[0]) == ["It is 4.<|im_end|>"]
    with pytest.raises(ValueError, match="no loss mask for message 1: the template rewrites earlier messages"):
        template.tokenize(DIALOGUES[0] * 2)
