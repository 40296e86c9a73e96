"""Answers of models as HTML that can be shown to people: markdown and code, and nothing that runs or loads."""

import functools
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token


def rendered(text: str, breaks: bool = True) -> str:
    """CommonMark with tables and strikethrough.

    HTML in the text is shown as text, links that could run something are none, and pictures become links: to load one
    would tell its server who is looking.

    Args:
      breaks: whether a line's end in a paragraph stays one, as chat pages show it.
    """
    return _markdown(breaks).render(text)


@functools.cache
def _markdown(breaks: bool) -> MarkdownIt:
    markdown = MarkdownIt("js-default", {"breaks": breaks}).disable("image")
    markdown.add_render_rule("link_open", _link)
    return markdown


def _link(renderer: object, tokens: Sequence[Token], index: int, options: object, env: object) -> str:
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, index, options, env)
