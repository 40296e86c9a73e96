"""The lines that the judge, the raters and the question about tone add to the report, as tasks of evaluation do."""

from imitation_jax.evaluation.task import Row, Sample


def _preference(sample: Sample) -> float | None:
    return sample.get("preference")


def _at_least_equal(sample: Sample) -> float | None:
    return None if sample.get("preference") is None else float(sample["preference"] >= 0.5)


ROWS = (
    Row("style", "tone", "authoritative", "Authoritative tone, by an LLM judge, %", sample_value=_preference, order=20),
    Row("preference", "human", "equal_or_better", "People: equal to the teacher or better, %",
        sample_value=_at_least_equal, order=10),
    Row("preference", "human", "better", "People: better, %", headline=False, order=10),
    Row("preference", "human", "equal", "People: equal, %", headline=False, order=10),
    Row("preference", "human", "worse", "People: worse, %", headline=False, order=10),
    Row("preference", "human", "alpha", "People: agreement (Krippendorff's alpha)", 1, 2, headline=False, order=10),
    Row("preference", "judge", "win_rate", "LLM judge: win rate, %", sample_value=_preference, order=20),
    Row("preference", "judge", "win_rate_length_controlled", "LLM judge: win rate at equal length, %",
        headline=False, order=20),
    Row("preference", "judge", "ties", "LLM judge: ties, %", headline=False, order=20),
    Row("preference", "judge", "flip_rate", "LLM judge: verdict turns with the order, %", headline=False, order=20),
)  # fmt: skip
