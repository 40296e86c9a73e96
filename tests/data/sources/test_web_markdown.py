"""Turns as the chat page has them, written by hand after its structure."""

import time

import pytest

from imitation_jax.data.sources.web_markdown import MAX_TAGS, to_markdown

BAR = (
    '<div class="flex items-center bg-gray-800"><span class="">{}</span><button class="flex ml-auto gap-2">'
    '<svg stroke="currentColor"><path d="M16 4"></path></svg>Copy code</button></div>'
)
COUNTER = '<div class="text-xs"><button><svg></svg></button><span class="flex-grow">2 / 3</span><button></button></div>'


def answer(html):
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{html}</div>'


def question(text):
    return f'<div class="min-h-[20px] flex flex-col items-start gap-4 whitespace-pre-wrap">{text}</div>'


def code(text, language="python", css="!whitespace-pre hljs language-python"):
    return f'<pre><div class="bg-black">{BAR.format(language)}<div class="p-4"><code class="{css}">{text}</code></div>'


def markdown(html, role="assistant", asked="q"):
    (_, text), _ = to_markdown([("user", asked), (role, html)])
    return text


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One <strong>two</strong> <em>three</em></p><p>four</p>", "One **two** *three*\n\nfour"),
        ("<h2>Head</h2><p>text</p><hr><h3>Sub</h3>", "## Head\n\ntext\n\n---\n\n### Sub"),
        ("<ol><li><p>a</p></li><li><p>b</p></li></ol><p>c</p>", "1. a\n2. b\n\nc"),
        ('<ol start="3"><li>c</li></ol><ul><li>x<ul><li>y</li></ul></li></ul>', "3. c\n\n- x\n  - y"),
        ("<blockquote><p>said</p></blockquote>", "> said"),
        ('<p>See <a href="https://x.y" target="_new">this</a>.</p>', "See [this](https://x.y)."),
        ("<p>Use <code>&lt;div&gt;</code>, a_b and 2 * 3 &amp; more</p>", "Use `<div>`, a_b and 2 * 3 & more"),
        ("<p>H<sub>2</sub>O</p>", "H<sub>2</sub>O"),
        (
            "<table><thead><tr><th>A</th><th>B</th></tr></thead>"
            "<tbody><tr><td>1|2</td><td>2 / 2</td></tr></tbody></table>",
            "| A | B |\n| --- | --- |\n| 1\\|2 | 2 / 2 |",
        ),
        ("<p>Copy code and 1 / 2 are words here</p><p>1 / 2</p>", "Copy code and 1 / 2 are words here\n\n1 / 2"),
        (
            '<p>Is <span class="math math-inline"><span class="katex"><span class="katex-mathml"><math><mi>x</mi>'
            '<annotation encoding="application/x-tex">x^2</annotation></math></span><span class="katex-html">x2</span>'
            "</span></span> odd?</p>",
            "Is $x^2$ odd?",
        ),
    ],
)
def test_what_the_page_rendered(html, expected):
    assert markdown(answer(html)) == expected


def test_code_keeps_its_language_and_every_space_of_it():
    spans = '<span class="hljs-keyword">def</span> f(x):\n    <span>return</span> x &lt; 2  # 1 / 2\n\n\n    # end\n'
    fenced = "```python\ndef f(x):\n    return x < 2  # 1 / 2\n\n\n    # end\n```"
    assert markdown(answer("<p>So:</p>" + code(spans) + "</div></pre><p>ok</p>")) == f"So:\n\n{fenced}\n\nok"
    # named by the bar alone, or not at all
    assert markdown(answer(code("ls\n", "bash", "hljs"))) == "```bash\nls\n```"
    assert markdown(answer("<pre><code>ls\n</code></pre>")) == "```\nls\n```"
    assert markdown(answer("<pre>bashCopy code\nls\n</pre>")) == "```bash\nls\n```"


def test_code_in_a_list_stays_in_its_item_and_fences_outgrow_those_inside():
    nested = answer(f"<ol><li><p>Run</p>{code('ls -l')}</div></pre></li><li><p>Look</p></li></ol>")
    assert markdown(nested) == "1. Run\n\n   ```python\n   ls -l\n   ```\n2. Look"
    assert markdown(answer(code("```sh\nls\n```", "markdown", ""))) == "````markdown\n```sh\nls\n```\n````"


def test_buttons_and_counters_around_the_boxes_go():
    texts, changed = to_markdown([("user", question("Why?") + COUNTER), ("assistant", answer("<p>So.</p>") + COUNTER)])
    assert (texts, changed) == (["Why?", "So."], {"html": 2})


def test_a_users_words_stay_as_typed():
    typed = "What is &lt;b&gt;?\n\n  def f():\n      pass\n* x_y"
    assert markdown(question(typed), role="user") == "What is <b>?\n\n  def f():\n      pass\n* x_y"


def test_an_answer_box_inside_the_outer_box():
    assert markdown(question(answer("<p>a</p><p>b</p>"))) == "a\n\nb"


@pytest.mark.parametrize(
    "text",
    [
        "<div> is a tag, and so is <p>",
        "Use <div class='markdown prose'>x</div>",
        "<div class='markdown prose'>x</div> is how they do it",
        "<div class='card'><p>Hello</p></div>",
        "<html><body><p>Hello</p></body></html>",
        "<p onclick='f()'>Hello</p>",
        "<p>one</p> and <p>two</p>",
        '```html\n<div class="markdown prose"><p>x</p></div>\n```',
        "<p>cut",
        "a < b and c > d",
        "Copy code\n1 / 2\nmore",
        "x\n\n2 / 3",
        "",
    ],
)
def test_code_and_prose_that_mention_tags_stay(text):
    assert to_markdown([("user", "Show me"), ("assistant", text)]) == (["Show me", text], {})


def test_rendered_tags_without_a_box_count_only_where_the_whole_dialogue_speaks_so():
    turns = [("user", "q"), ("assistant", "<p>a</p>"), ("user", "r"), ("assistant", "<ul><li>b</li></ul>")]
    assert to_markdown(turns) == (["q", "a", "r", "- b"], {"html": 2})
    for other in [("user", "Write HTML"), ("assistant", "plain")]:
        texts = [text for _, text in (*turns, other)]
        assert to_markdown([*turns, other]) == (texts, {})


@pytest.mark.parametrize("value", [None, 5, ["<p>x</p>"]])
def test_what_is_no_text_is_handed_back(value):
    assert to_markdown([("user", value), ("assistant", "a"), (None, "b")]) == ([value, "a", "b"], {})


def test_what_naive_conversion_left():
    fences = "```pythonCopy code\nx\n```\n   ```Copy code\ny\n   ```\n```Copy12 chars / 3 words\nz\n```"
    kept = "```python\nx\n```\n   ```Copy code\ny\n   ```\n```\nz\n```"
    texts, changed = to_markdown([("user", "Why?\n2 / 2"), ("assistant", fences)])
    assert (texts, changed) == (["Why?", kept], {"artefacts": 2})
    # of other shapes they are the user's own
    for text in ("1 / 2", "Half is\n2 / 1", "One\n1 / 1", "a 2 / 2"):
        assert to_markdown([("user", text)]) == ([text], {})


@pytest.mark.parametrize(
    "html",
    ["<div>" * 9000 + "</div>" * 9000, "<p>x</p>" * (MAX_TAGS + 1), "<a " * 200_000, "<ul><li>" * 400],
    ids=["deep", "many tags", "open tags", "deep list"],
)
def test_hostile_html_is_refused_in_one_line_and_soon(html):
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^a turn of HTML [^\n]*$"):
        markdown(answer(html))
    assert time.process_time() - start < 20


@pytest.mark.parametrize("text", ["```" + " " * 10**6, "x" + "\n " * 10**6 + "y", "```Copy " + "a" * 10**6])
def test_long_runs_of_space_take_no_time(text):
    start = time.process_time()
    assert to_markdown([("user", text)]) == ([text], {})
    assert to_markdown([("user", "q"), ("assistant", answer(f"<pre>{text}</pre>"))])[1] == {"html": 1}
    assert time.process_time() - start < 20
