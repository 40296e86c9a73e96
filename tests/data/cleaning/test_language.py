from types import SimpleNamespace

import pytest

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.cleaning import language
from imitation_jax.data.sources import sharegpt

SETTINGS = SimpleNamespace(**language.get_config().to_dict())

PLANTED = {
    "de": [
        ("Wie lange muss ich Kartoffeln kochen?", "Je nach Größe etwa zwanzig Minuten in Salzwasser."),
        ("Schreib mir bitte eine Absage für die Einladung am Samstag.", "Liebe Anna, leider kann ich nicht kommen."),
        ("was ist der unterschied zwischen dativ und akkusativ", "Der Dativ antwortet auf die Frage: Wem?"),
        (
            "Erkläre mir Rekursion in Python.",
            "Eine Funktion ruft sich selbst auf:\n```python\ndef f(n):\n    return f(n - 1)\n```",
        ),
        ("Fasse den Text in drei Sätzen zusammen.", "Der Text handelt von einem Fischer, der seine Frau sucht."),
        ("Danke, das hat mir sehr geholfen!", "Gern geschehen. Sag Bescheid, wenn du noch etwas brauchst."),
        (
            "Nenne fünf Ideen fuer ein Geburtstagsgeschenk",
            "1. Ein Buch\n2. Eine Reise\n3. Ein Kochkurs\n4. Blumen\n5. Musik",
        ),
        ("Warum ist der Himmel blau?", "Weil kurzwelliges Licht in der Luft stärker gestreut wird als langwelliges."),
    ],
    "es": [
        ("¿Cuál es la capital de Australia?", "La capital de Australia es Canberra, no Sídney."),
        (
            "Escribe un correo para mi jefe pidiendo vacaciones",
            "Estimado señor López: me gustaría pedir una semana libre.",
        ),
        ("como puedo mejorar mi curriculum", "Empieza por un resumen corto y ordena tu experiencia por fechas."),
        ("Explica qué hace este código: `print(x)`", "Muestra en la pantalla el valor de la variable x."),
        ("Dame una receta facil con pollo", "Corta el pollo, dora la cebolla y cocina todo con arroz."),
        ("Resume el siguiente texto en dos frases.", "El autor cuenta la historia de un pueblo que perdió su río."),
        ("gracias por tu ayuda, eso es todo", "De nada. Si tienes más preguntas, aquí estaré."),
        (
            "¿Por qué los gatos ronronean?",
            "Suelen hacerlo cuando están tranquilos, pero también cuando les duele algo.",
        ),
    ],
    "zh": [
        ("天空为什么是蓝色的？", "因为空气分子对短波长的光散射得更强。"),
        ("请帮我写一封请假邮件", "尊敬的经理：我因为身体不适，想请假一天。"),
        ("你好", "你好！有什么可以帮助你的吗？"),
        (
            "用 Python 写一个快速排序",
            "下面是代码：\n```python\ndef quick(a):\n    return a\n```\n这个函数返回排好序的列表。",
        ),
        ("推荐五本关于历史的书", "一、史记；二、资治通鉴；三、万历十五年；四、全球通史；五、枪炮、病菌与钢铁。"),
        ("把这句话翻译成更正式的说法", "我们诚挚地邀请您出席本次会议。"),
        ("谢谢你的解释", "不客气，如果还有问题请随时告诉我。"),
        ("什么是机器学习？", "机器学习是让计算机从数据中学习规律的方法。"),
    ],
}
CODE = [
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
    "```js\nconst der = new Date();\nconsole.log(der.getTime());\n```",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }',
    "SELECT id, nombre FROM clientes WHERE pais = 'ES' ORDER BY id;",
    "for i in range(10):\n    if i % 2 == 0:\n        print(i)",
    "<div class=\"karte\"><p id='text'></p></div>\n.karte { margin: 0 auto; }",
    '{"name": "prueba", "werte": [1, 2, 3], "liste": {"a": null}}',
    "https://beispiel.example/seite?id=12345678&sprache=deutsch",
    "git commit -am 'wip' && git push --force origin HEAD:main",
    "```\nTraceback (most recent call last):\n  File \"x.py\", line 3\nKeyError: 'schluessel'\n```",
]
ENGLISH = [
    ("hi", "Hello! How can I help you today?"),
    ("continue", "Sure. The next chapter begins in the harbour, where the two brothers meet again."),
    ("Translate 'good morning' to German", "Guten Morgen"),
    ("write hello world in rust", '```rust\nfn main() { println!("Hello"); }\n```'),
    ("top 5 pasta sauces", "Here are some:\n1. Marinara\n2. Pesto\n3. Alfredo\n4. Carbonara\n5. Arrabbiata"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted it."),
]


def dialogue(*texts):
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}


def is_english(*texts):
    return not language.others(dialogue(*texts), SETTINGS)


def test_real_and_planted_dialogues_are_told_apart(lent):
    """At least 98 of 100 are: real English ones, also with code alone around them, and planted ones in others."""
    read = sharegpt.read([str(lent("sharegpt/sharegpt_sample.jsonl.gz"))])
    real = [[turn["content"] for turn in item["messages"]] for _, item in read if not isinstance(item, Rejected)]
    planted = [pair for pairs in PLANTED.values() for pair in pairs]
    some = real[::90]  # the dump is not all English
    coded = [(code, code) for code in CODE] + [(code, texts[1]) for code, texts in zip(CODE, some, strict=False)]
    right = [is_english(*texts) for texts in real]
    assert sum(right) >= 0.98 * len(right)
    right = (
        [is_english(*texts) for texts in some]
        + [not is_english(*pair) for pair in planted]
        + [is_english(*pair) for pair in coded]
    )
    assert sum(right) >= 0.98 * len(right)


@pytest.mark.parametrize("name", PLANTED)
def test_turns_in_other_languages_are_never_english(name):
    told = [language.of_turn(text, SETTINGS) for pair in PLANTED[name] for text in pair]
    assert "en" not in told
    assert told.count(name) >= 0.7 * len(told)
    assert not any(is_english(*pair) for pair in PLANTED[name])


def test_code_and_addresses_count_for_no_language():
    for code in CODE:
        assert language.of_turn(code, SETTINGS) in (None, "en"), code
        assert is_english(code, code)
        assert not is_english("Was macht dieser Code? Bitte erklär ihn mir.", code), code


@pytest.mark.parametrize("texts", ENGLISH)
def test_short_english_dialogues_stay(texts):
    assert is_english(*texts)


def test_a_dialogue_counts_by_its_turns():
    german, spanish = PLANTED["de"][0], PLANTED["es"][0]
    english = ("What does this sentence mean? I do not understand it.", "It asks for the capital of Australia.")
    assert is_english(*english, *german)  # half of them
    assert not is_english(*english, *german, *spanish)
    strict = SimpleNamespace(**vars(SETTINGS) | {"least_turns": 0.9})
    assert language.others(dialogue(*english, *german), strict) == ["de", "de"]


def test_another_language_can_be_kept():
    german = SimpleNamespace(**vars(SETTINGS) | {"keep": "de"})
    assert not any(language.others(dialogue(*pair), german) for pair in PLANTED["de"])
    assert all(language.others(dialogue(*pair), german) for pair in PLANTED["es"])
