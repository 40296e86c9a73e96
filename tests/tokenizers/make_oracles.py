"""Writes oracles.json beside this file: what transformers makes of the texts and dialogues below.

Made with transformers 5.23, tokenizers 0.23.3, gguf 0.19:
    python tests/tokenizers/make_oracles.py LLAMA_TOKENIZER_MODEL SMOLLM2_GGUF GPT2_VOCAB GPT2_MERGES
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "\t",
    "Hello world",
    " Hello world",
    "  Hello   world  ",
    "Hello world \n",
    "trailing spaces   ",
    "line one\nline two\r\nline three\n\n\n  indented by two\n    indented by four\n\tby a tab",
    "def f(x):\n    if x > 10:\n        return 3.14159 * x\n    return -1",
    "1 22 333 4444 55555  6  77\n8\n\n9",
    "naïve café, Straße, Ångström, ﬁne ligature, Ⅷ ½ ²",
    "日本語のテキスト。中文文本！한국어 텍스트",
    "مرحبا بالعالم — שלום עולם — नमस्ते दुनिया",
    "🤗 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "rare: 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ꙮ 𓂀 \u200b zero-width \ufeff bom",
    "combining e\u0301 and a\u030a",
    "null \x00 and control \x07 \x1b[0m",
    "▁already ▁meta ▁▁space",
    "special </s> in <s> the text <unk> here",
    "</s>",
    "a</s>b</s> c </s>  d",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>tail",
    "<|im_end|>  two spaces after",
    "<0x0A> <0xE2> are not bytes",
    "it's they'll WE'RE I'd he'S don't",
    "a" * 100,
    "=" * 50 + "-" * 33 + "." * 17,
    "https://example.org/a_b/c?d=e&f=%20#g",
    "$\\frac{1}{2} \\sum_{i=0}^{n} x_i^2$",
    '{"key": [1, 2, {"nested": null}], "s": "\\u00e9"}',
]
DIALOGUES = [
    [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}],
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a fruit.  "},
        {"role": "assistant", "content": "An apple 🍎\n"},
        {"role": "user", "content": "Another </s> <|im_end|>?"},
        {"role": "assistant", "content": "A pear.\n\n- green\n- sweet"},
    ],
    [{"role": "user", "content": "No answer yet"}],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
]
# A template with {% generation %} blocks, a filter, a loop control and white space control.
BLOCKS = """{% for message in messages %}
  {% if message.role == 'system' %}
    {% continue %}
  {% endif %}
<|im_start|>{{ message.role }} {{ {'n': loop.index, 'é': '<&>'} | tojson }}
  {% if message.role == 'assistant' %}
{% generation %}{{ message.content | trim }}<|im_end|>{% endgeneration %}
  {% else %}
{{ message.content }}<|im_end|>
  {% endif %}
{% endfor %}"""


def main(llama_model: str, smollm2_gguf: str, gpt2_vocab: str, gpt2_merges: str) -> None:
    from transformers import AutoTokenizer, GPT2Tokenizer, LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(llama_model, Path(folder) / "tokenizer.model")
        llama = LlamaTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(gpt2_vocab, Path(folder) / "vocab.json")
        shutil.copyfile(gpt2_merges, Path(folder) / "merges.txt")
        gpt2 = GPT2Tokenizer.from_pretrained(folder)
    smollm2 = AutoTokenizer.from_pretrained(str(Path(smollm2_gguf).parent), gguf_file=Path(smollm2_gguf).name)

    def chat(messages: list[dict[str, str]], **options) -> dict[str, list]:
        return smollm2.apply_chat_template(messages, tokenize=True, return_dict=True, **options)

    dialogues = []
    for messages in DIALOGUES:
        blocks = chat(messages, chat_template=BLOCKS, return_assistant_tokens_mask=True)
        dialogues.append(
            {
                "text": smollm2.apply_chat_template(messages, tokenize=False),
                "ids": chat(messages)["input_ids"],
                "prompt_ids": chat(messages, add_generation_prompt=True)["input_ids"],
                "blocks_text": smollm2.apply_chat_template(messages, tokenize=False, chat_template=BLOCKS),
                "blocks_ids": blocks["input_ids"],
                "blocks_mask": blocks["assistant_masks"],
            }
        )
    oracles = {
        "llama": [llama.encode(text, add_special_tokens=False) for text in TEXTS],
        "smollm2": [smollm2.encode(text, add_special_tokens=False) for text in TEXTS],
        "gpt2": [gpt2.encode(text, add_special_tokens=False) for text in TEXTS],
        "dialogues": dialogues,
    }
    path = Path(__file__).with_name("oracles.json")
    path.write_text(json.dumps(oracles, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
