"""The chat page's HTML, as older dumps hold it, -> the markdown that it was rendered from.

What counts as HTML is decided by who wrote the tags. A turn that is one of the page's own boxes is HTML. A turn of
plain rendered tags (`<p>`, `<ol>`, ...) may as well be code, so that its dialogue decides: see `to_markdown`.
"""

import re
from collections.abc import Sequence

from bs4 import BeautifulSoup, ParserRejectedMarkup, Tag
from markdownify import MarkdownConverter

# Classes of the boxes around what the model and what the user wrote.
ANSWER_BOX = {"markdown", "prose"}
QUESTION_BOX = {"items-start", "whitespace-pre-wrap"}
# What rendering markdown makes, and the attributes that it gives.
RENDERED = set("p h1 h2 h3 h4 h5 h6 ul ol li pre code span blockquote hr br strong em del a img".split())
RENDERED |= set("table thead tbody tr th td sub sup".split())
ATTRIBUTES = {"a": {"href", "target", "rel", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}
ATTRIBUTES |= {tag: {"class"} for tag in ("code", "span")} | {tag: {"align", "style"} for tag in ("th", "td")}
BLOCKS = ["div", "p", "pre", "ul", "ol", "table"]
TEXTS = ["p", "li", "td", "th", "pre", "code", "a", "strong", "em", "h1", "h2", "h3", "h4", "h5", "h6"]

MAX_TAGS = 10_000  # a turn of the page has some hundreds; conversion takes more than linear time
OPENS = re.compile(r"\s*<(div|p|h[1-6]|ul|ol|pre|blockquote|table)\b", re.IGNORECASE)
CLOSES = re.compile(r"</[a-z][a-z0-9]*>\s*\Z", re.IGNORECASE)
COUNTER = re.compile(r"\s*(\d{1,3}) / (\d{1,3})\s*")
LAST_LINE_COUNTER = re.compile(r"\n[ \t]*(\d{1,3}) / (\d{1,3})\s*\Z")
COPY_BUTTON = re.compile(r"Copy code|Copy\d+ chars / \d+ words")
CODE_HEAD = re.compile(rf"\s*+([\w+#.-]*?)\s*+(?:{COPY_BUTTON.pattern})\n?")
FENCE_HEAD = re.compile(rf"^(```++[ \t]*+[\w+#.-]*?)[ \t]*+(?:{COPY_BUTTON.pattern})[ \t]*(\n?)", re.MULTILINE)


class _Converter(MarkdownConverter):
    def __init__(self):
        plain = {"escape_asterisks": False, "escape_underscores": False, "sub_symbol": "<sub>", "sup_symbol": "<sup>"}
        super().__init__(heading_style="atx", bullets="-", **plain)

    def convert_pre(self, el, text, parent_tags):
        if "typed" in el.attrs:
            return f"\n\n{text.strip(chr(10))}\n\n"
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"^[ \t]*+(`{3,})", text, re.MULTILINE)), default=2))
        return f"\n\n{fence}{el.get('language', '')}\n{text.strip(chr(10))}\n{fence}\n\n"

    def convert_td(self, el, text, parent_tags):
        return super().convert_td(el, text.replace("|", "\\|"), parent_tags)

    convert_th = convert_td


def to_markdown(turns: Sequence[tuple[str | None, object]]) -> tuple[list[object], dict[str, int]]:
    """The texts of a dialogue's (role, text) turns without HTML and the page's artefacts.

    A turn is HTML if it is nothing but boxes of the chat page. Turns of the model without a box are HTML if each of
    them is, holds only tags and attributes that rendering makes, and no user speaks of HTML: an answer that is HTML
    code stays. Buttons ("Copy code"), the counters of a prompt's versions ("2 / 3") and the double of a formula go.

    In other turns only what naive conversion left is removed: "Copy code" in the line of a code fence, and a counter
    that is the last line of a user's turn.

    Returns:
      The texts, the others' objects untouched, and how many turns changed: {"html": .., "artefacts": ..}, those only
      that are not 0.

    Raises:
      ValueError: a turn of HTML that is too deep or has more than `MAX_TAGS` tags.
    """
    soups = [_soup(text) if isinstance(text, str) else None for _, text in turns]
    boxed = [soup is not None and _is_boxed(soup) for soup in soups]
    answers = [number for number, (role, _) in enumerate(turns) if role == "assistant"]
    asked = [text for role, text in turns if role == "user" and isinstance(text, str)]
    rendered = all(boxed[number] or (soups[number] is not None and _is_rendered(soups[number])) for number in answers)
    if rendered and not any("html" in text.lower() for text in asked):
        for number in answers:
            boxed[number] = True
    texts: list[object] = []
    changed = {"html": 0, "artefacts": 0}
    for (role, text), soup, is_html in zip(turns, soups, boxed, strict=True):
        new = _markdown(soup) if is_html else _without_artefacts(role, text) if isinstance(text, str) else text
        changed["html" if is_html else "artefacts"] += new != text
        texts.append(new)
    return texts, {name: count for name, count in changed.items() if count}


def _soup(text: str) -> BeautifulSoup | None:
    """None unless the text begins and ends as HTML does and has nothing outside of elements."""
    if not (OPENS.match(text) and CLOSES.search(text)):
        return None
    if text.count("<") > 10 * MAX_TAGS:
        raise ValueError(f"a turn of HTML with more than {5 * MAX_TAGS:,} tags")
    try:
        soup = BeautifulSoup(text, "html.parser")
    except ParserRejectedMarkup:
        return None
    return None if any(not isinstance(node, Tag) and node.strip() for node in soup.children) else soup


def _is_boxed(soup: BeautifulSoup) -> bool:
    """Whether all text stands in the page's boxes, its buttons and counters aside."""
    boxes = {id(tag) for tag in soup.find_all("div") if _classes(tag) >= ANSWER_BOX or _classes(tag) >= QUESTION_BOX}
    if not boxes:
        return False
    waiting = list(soup.children)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Tag):
            if node.strip() and not COUNTER.fullmatch(node):
                return False
        elif id(node) not in boxes and node.name not in ("button", "svg"):
            waiting += node.children
    return True


def _is_rendered(soup: BeautifulSoup) -> bool:
    return all(tag.name in RENDERED and tag.attrs.keys() <= ATTRIBUTES.get(tag.name, set()) for tag in soup.find_all())


def _classes(tag: Tag) -> set[str]:
    return set(tag.get("class") or ())


def _markdown(soup: BeautifulSoup) -> str:
    for tag in soup.find_all(["button", "svg", "style", "script"]):
        tag.decompose()
    for tag in soup.find_all("pre"):
        _flatten_code(tag)
    for tag in soup.find_all(class_="katex"):
        _flatten_formula(tag)
    for text in soup.find_all(string=COUNTER.fullmatch):
        if text.parent.name in ("span", "div") and not text.find_parent(TEXTS):
            text.extract()
    if len(soup.find_all(limit=MAX_TAGS + 1)) > MAX_TAGS:
        raise ValueError(f"a turn of HTML with more than {MAX_TAGS:,} tags")
    try:
        for box in soup.find_all("div"):
            # The user's words stand there as typed, line breaks and all.
            if _classes(box) >= QUESTION_BOX and not box.find(BLOCKS):
                box.name, box.attrs = "pre", {"typed": ""}
        return _Converter().convert_soup(soup).strip()
    except RecursionError:
        raise ValueError("a turn of HTML that is too deep") from None


def _flatten_code(pre: Tag) -> None:
    """Leaves a code block's text and, as an attribute of its own, its language; the bar above it goes."""
    code = pre.find("code")
    language = next((name[9:] for name in sorted(_classes(code or pre)) if name.startswith("language-")), "")
    text = (code or pre).get_text()
    if code is not None:
        code.extract()
        above = COPY_BUTTON.sub("", pre.get_text()).split()
        language = language or (above[0] if len(above) == 1 else "")
    elif head := CODE_HEAD.match(text):
        language, text = head[1] or language, text[head.end() :]
    pre.clear()
    pre.append(text)
    pre.attrs = {"language": language}


def _flatten_formula(katex: Tag) -> None:
    """A formula stands there twice, for the eye and for machines, and once as its source."""
    source = katex.find("annotation")
    if source is not None:
        marks = "$$" if katex.find_parent(class_=["math-display", "katex-display"]) else "$"
        katex.replace_with(f"{marks}{source.get_text()}{marks}")


def _without_artefacts(role: str | None, text: str) -> str:
    if "Copy" in text:
        text = FENCE_HEAD.sub(r"\1\n", text)
    if role == "user" and (counter := LAST_LINE_COUNTER.search(text)) and 1 <= int(counter[1]) <= int(counter[2]) > 1:
        text = text[: counter.start()].rstrip() or text
    return text
