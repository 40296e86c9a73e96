"""Whether the paper's finding shows in a student: imitation moves style towards the teacher and leaves knowledge.

Gudibande et al. 2023, "The False Promise of Imitating Proprietary LLMs" (arXiv 2305.15717).
"""

import dataclasses
from collections.abc import Sequence

from imitation_jax.reporting.changes import Change, beyond, change, not_excluded
from imitation_jax.reporting.model_results import ROWS, Model, not_comparable

# A gain that is smaller than this counts as none; the paper's own losses and gains on NQ are 5 to 10 points.
NEGLIGIBLE = 0.05
# Numbers that do not exclude a gain of this much say nothing about it.
COARSE = 0.25


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`stands` is "supported", "agrees", "contradicted", "mixed" or "open"; `sentence` says so in plain words."""

    student: str
    stands: str
    sentence: str
    style: list[Change]
    knowledge: list[Change]
    not_compared: list[str]


def verdict(student: Model, base: Model) -> Verdict:
    """Whether the student's style rose and its knowledge did not, beyond the errors of the numbers.

    Style rose: at least half of its rows are up, and none is down. Knowledge rose: some task is up. Both beyond
    intervals that hold together at 95%, see `beyond`. That knowledge did not rise is shown ("supported") only where the
    intervals also exclude a gain of `NEGLIGIBLE`; else the numbers merely agree with the paper, and where they do not
    exclude one of `COARSE` they say nothing.
    """
    changes: dict[str, list[Change]] = {"style": [], "knowledge": []}
    not_compared = []
    for row in ROWS:
        differing = not_comparable(row, student, base)
        if not row.headline or row.kind not in changes or differing is None:
            continue
        if differing:
            not_compared.append(f"{row.label.removesuffix(', %')}: measured with different {', '.join(differing)}")
        elif changed := change(row, student, base):
            changes[row.kind].append(changed)
    style, knowledge = changes["style"], changes["knowledge"]
    stands, sentence = _judge(student.name, base.name, style, knowledge)
    return Verdict(student.name, stands, sentence, style, knowledge, not_compared)


def _judge(student: str, base: str, style: Sequence[Change], knowledge: Sequence[Change]) -> tuple[str, str]:
    missing = [kind for kind, changes in (("style", style), ("knowledge", knowledge)) if not changes]
    if missing:
        return "open", (
            f"The numbers cannot say whether the paper's finding holds for {student}: no {' and no '.join(missing)} "
            f"row was measured alike on {student} and on {base}."
        )
    ups, downs = map(len, beyond(style))
    style_up, style_down = 2 * ups >= len(style) and not downs, downs > 0 and not ups
    risen, fallen = beyond(knowledge)

    style_text = f"{ups} of {len(style)} style measures rose beyond error" + (f" and {downs} fell" if downs else "")
    knowledge_text = "; ".join(str(c) for c in knowledge)
    if risen:
        learnt = "knowledge rose"
    elif fallen:
        learnt = "knowledge fell"
    else:
        learnt = "knowledge did not change beyond error"
    facts = f"{style_text}, while {learnt} ({knowledge_text}; difference ± standard error)."
    if style_up and not risen:
        highest = not_excluded(knowledge)
        change_text = f"compared with {base}, {student} sounds more like the teacher and"
        if highest < NEGLIGIBLE:
            return "supported", f"The numbers support the paper's finding: {change_text} knows no more. {facts}"
        coarse = f"A gain of up to {100 * highest:.0f} points is not excluded; more questions would narrow that."
        if highest > COARSE:
            return "open", f"{change_text[0].upper()}{change_text[1:]} what it knows cannot be said. {facts} {coarse}"
        return "agrees", (
            f"The numbers agree with the paper's finding but are too coarse to prove it: {change_text} shows no clear "
            f"gain of knowledge. {facts} {coarse}"
        )
    if risen:
        how = "took on the teacher's style and also" if style_up else "did not clearly take on the teacher's style but"
        return "contradicted", (
            f"The numbers contradict the paper's finding: compared with {base}, {student} {how} gained knowledge. "
            f"{facts}"
        )
    if not ups and not downs and not_excluded(style) > NEGLIGIBLE:
        return "open", (
            f"The numbers are too coarse to say whether the paper's finding holds for {student}: no style measure "
            f"moved beyond error, and a clear rise is not excluded. {facts}"
        )
    if style_down or not ups:
        how = "moved away from the teacher's style" if style_down else "did not take on the teacher's style"
        return "contradicted", (
            f"The numbers do not show the paper's finding: compared with {base}, {student} {how}, so there is no "
            f"imitation to speak of, and it gained no knowledge. {facts}"
        )
    return "mixed", (
        f"The numbers support the paper's finding only in part: compared with {base}, {student} gained no knowledge, "
        f"but its style moved towards the teacher in some measures only. {facts}"
    )
