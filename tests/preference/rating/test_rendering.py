"""Answers as HTML: markdown shows, nothing runs."""

import subprocess
import sys
from html.parser import HTMLParser

import pytest

from imitation_jax.preference.rating.rendering import rendered


def test_markdown_and_code():
    html = rendered("# Title\n\n- one\n- *two*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nif a < b: pass\n```\n")
    for part in (
        "<h1>Title</h1>",
        "<li>one</li>",
        "<em>two</em>",
        "<td>1</td>",
        "if a &lt; b: pass",
        "language-python",
    ):
        assert part in html
    assert "one<br>" in rendered("one\ntwo").replace("<br />", "<br>") and "<br" not in rendered(
        "one\ntwo", breaks=False
    )


@pytest.mark.parametrize(
    "text",
    [
        "<script>steal()</script>",
        "a <img src=x onerror=steal()> b",
        "[x](javascript:steal())",
        "[x](JaVaScRiPt&colon;steal())",
        "[x](vbscript:steal())",
        "[x](data:text/html;base64,c3RlYWwoKQ==)",
        "<javascript:steal()>",
        "![x](javascript:steal())",
        '[x](https://a.example "onmouseover=steal()")',
        '[x](https://a.example/"onmouseover="steal())',
        '```"><script>steal()</script>\ncode\n```',
        "`<script>steal()</script>`",
        "<a href=javascript:steal()>x</a>\n\n<svg onload=steal()>\n\n<iframe srcdoc='<script>steal()</script>'>",
        "<style>*{display:none}</style>\n<base href=//evil.example>\n<meta http-equiv=refresh content=0>",
    ],
)
def test_nothing_in_an_answer_becomes_markup_that_runs_or_loads(text):
    """Read as a browser reads it: only plain elements, only these attributes, links to the web alone."""
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

    Reader().feed(rendered(text))
    for tag, attributes in seen:
        assert tag in {"p", "a", "br", "code", "pre"}, seen
        assert set(attributes) <= {"href", "title", "target", "rel", "class"}, seen
        assert attributes.get("href", "https://").startswith("https://"), seen
        if tag == "a":
            assert attributes["rel"] == "noopener noreferrer nofollow" and attributes["target"] == "_blank"


def test_hostile_markdown_ends():
    texts = ["> " * 5000 + "x", "*" * 20000, "[" * 20000, "- " * 3000 + "x", "`" * 9999, "\0\x1b"]
    program = (
        f"import sys; from {rendered.__module__} import rendered; assert all(map(rendered, eval(sys.stdin.read())))"
    )
    subprocess.run([sys.executable, "-c", program], input=repr(texts), text=True, timeout=120, check=True)


def test_pictures_become_links():
    assert "<img" not in rendered("![a cat](https://a.example/cat.png)")
    assert 'href="https://a.example/cat.png"' in rendered("![a cat](https://a.example/cat.png)")
