"""Caveats: what the numbers do not support, said on the page, from the files themselves."""

import re
from collections.abc import Sequence

from imitation_jax.evaluation.tasks import full_sizes
from imitation_jax.reporting.model_results import ROWS, Model
from imitation_jax.reporting.study_file import Cell, Study, short

PROMPTS = 255  # that the paper's models answered


def caveats(study: Study | None, models: Sequence[Model]) -> list[str]:
    """Plain sentences, each with its reason."""
    of_study = (_left_out, _missing, _seeds, _warm_up, _sizes, _form) if study else ()
    of_models = (_not_measured, _parts, _scorer)
    return [text for each in of_study for text in each(study)] + [text for each in of_models for text in each(models)]


def _left_out(study: Study) -> list[str]:
    sentences = [f"Not done: {what} ({why})." for what, why in study.left_out]
    if study.scale != 1:
        sentences.insert(0, f"The study was run at scale {study.scale:g}: budgets and tests are that much smaller.")
    return sentences


def _missing(study: Study) -> list[str]:
    missing = [cell for cell in study.cells if cell.status != "done"]
    if not missing:
        return []
    return [f"{len(missing)} of {len(study.cells)} cells are not done ({_names(missing)}): what they say is not known."]


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.name for cell in cells[:5]) + (", ..." if len(cells) > 5 else "")


def _seeds(study: Study) -> list[str]:
    points = [point for line in study.lines for point in line.points]
    several = sum(len({cell.seed for cell in point}) > 1 for point in points)
    if several == len(points):
        return []
    which = f"Only {several} of {len(points)} points of the grid have" if several else "No point of the grid has"
    return [f"{which} more than one seed: elsewhere the intervals hold the questions' chance alone, not another run's."]


def _warm_up(study: Study) -> list[str]:
    inside = [cell for cell in study.cells if cell.warm_up]
    if not inside:
        return []
    return [
        f"{len(inside)} of {len(study.cells)} cells ended within the learning rate's warm-up ({_names(inside)}): "
        "along their lines more data is also a higher learning rate, and the two cannot be told apart. What is said of "
        "data amounts leaves these lines out."
    ]


def _sizes(study: Study) -> list[str]:
    known = [base.parameters for base in study.bases if base.parameters]
    sentences = [base.note for base in study.bases if base.note]
    if known and max(known) < 1.5e9:
        sentences.append(
            f"The largest base model has {short(max(known))} parameters, the paper's have 1.5B to 13B: a model this "
            "small may have too little knowledge to lose or to gain."
        )
    amounts = [cell.trained_tokens or cell.tokens for cell in study.cells]
    if amounts and max(amounts) < 20e6:
        sentences.append(
            f"The largest run has {short(max(amounts))} tokens; the paper's curves go to 150M. What happens beyond is "
            "not measured."
        )
    return sentences


def _form(study: Study) -> list[str]:
    if not any("nq_zero_shot" in data.tasks for data in study.data if data.local):
        return []
    return [
        "Zero-shot exact match counts the gold answer alone: question pairs teach a student that short form too, and "
        "what it gains by the form is no knowledge."
    ]


def _not_measured(models: Sequence[Model]) -> list[str]:
    def nobody(*tasks: str) -> bool:
        return not any(task in model.results for model in models for task in tasks)

    sentences = []
    if nobody("judge", "human"):
        sentences.append(
            "No person and no LLM judge compared answers: nothing here says which answers anyone would prefer."
        )
    elif nobody("human"):
        sentences.append("No person rated answers; the preferences are an LLM judge's.")
    if nobody("toxicity"):
        sentences.append("Toxicity was not measured.")
    if nobody("style"):
        sentences.append("Style was not measured.")
    knowing = {row.task for row in ROWS if row.kind == "knowledge"}
    results = [result for model in models for task, result in model.results.items() if task in knowing]
    if not results:
        sentences.append("Knowledge was not measured.")
    elif not any("contamination" in result for result in results):
        sentences.append("The training data were not searched for the questions (evaluate --contamination).")
    return sentences


def _parts(models: Sequence[Model]) -> list[str]:
    labels = {row.task: re.sub(", (%|exact match|pass@1)", "", row.label) for row in reversed(ROWS)}
    asked = {task: {n for m in models if isinstance(n := m.results.get(task, {}).get("n"), int)} for task in labels}

    def span(task: str) -> str:
        return " to ".join(f"{n:,}" for n in sorted({min(asked[task]), max(asked[task])}))

    parts = [
        f"{labels[task]} {span(task)} of {whole:,}"
        for task, whole in full_sizes().items()
        if asked.get(task) and min(asked[task]) < whole
    ]
    sentences = [f"Asked were parts of the test sets: {', '.join(parts)} questions."] if parts else []
    if asked["style"] and min(asked["style"]) < PROMPTS:
        sentences.append(f"Style was measured on {span('style')} prompts, the paper's on {PROMPTS}.")
    return sentences


def _scorer(models: Sequence[Model]) -> list[str]:
    scorers = {
        model.results["toxicity"].get("scored_by", {}).get("kind") for model in models if "toxicity" in model.results
    }
    offline = sorted(kind for kind in scorers if kind and kind != "perspective")
    if not offline:
        return []
    return [f"Toxicity was scored by {', '.join(offline)}, not by Perspective: compare models, not the paper's values."]


def why_missing(cell: Cell) -> str:
    """What stands in a cell's place."""
    return cell.why or {"missing": "not started", "done": ""}.get(cell.status, cell.status)
