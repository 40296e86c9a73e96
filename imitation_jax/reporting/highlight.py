"""Highlights the features of style in an answer, as `evaluation/tasks/style.py` counts them."""

from collections import Counter

from markupsafe import Markup, escape

from imitation_jax.evaluation.tasks.style import (
    LIST_ITEM,
    PARAGRAPH_BREAK,
    SUMMARY,
    WORD,
    has_list,
    has_summary,
    unigram_intersection,
)


def highlighted(answer: str, reference: str | None) -> Markup:
    """`<b class="list">` around list items' signs, `<b class="summary">` around the phrase that a summary paragraph
    starts with, `<u>` around the words that the reference has too, each as often as there."""
    spans = [(*_trimmed(answer, match.span()), "b", "list") for match in LIST_ITEM.finditer(answer)]
    if has_summary(answer):
        start = max(match.end() for match in PARAGRAPH_BREAK.finditer(answer.rstrip()))
        start += len(answer[start:]) - len(answer[start:].lstrip())
        spans.append((start, start + SUMMARY.match(answer[start:]).end(), "b", "summary"))
    taken = [(start, end) for start, end, *_ in spans]
    left = Counter(WORD.findall(reference.lower())) if reference else Counter()
    for match in WORD.finditer(answer):
        word = match.group().lower()
        if left[word] > 0:
            left[word] -= 1
            if not any(start < match.end() and match.start() < end for start, end in taken):
                before = spans[-1] if spans else None
                if before and before[2] == "u" and answer[before[1] : match.start()].isspace():
                    spans[-1] = (before[0], match.end(), "u", "")  # neighbours are one
                else:
                    spans.append((*match.span(), "u", ""))
    parts, place = [], 0
    for start, end, tag, kind in sorted(spans):
        attribute = f' class="{kind}"' if kind else ""
        parts += [escape(answer[place:start]), f"<{tag}{attribute}>{escape(answer[start:end])}</{tag}>"]
        place = end
    return Markup("".join(map(str, [*parts, escape(answer[place:])])))


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    part = text[span[0] : span[1]]
    start = span[0] + len(part) - len(part.lstrip())
    return start, start + len(part.strip())


def features(answer: str, reference: str | None) -> str:
    """In words: list, summary, the share of words that it has in common with the reference, length."""
    names = [name for name, has in (("list", has_list), ("summary paragraph", has_summary)) if has(answer)]
    if reference:
        names.append(f"{100 * unigram_intersection(answer, reference):.0f}% of words shared")
    return ", ".join([*names, f"{len(answer.split())} words"])
