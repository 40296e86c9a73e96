"""What "The False Promise of Imitating Proprietary LLMs" (Gudibande et al. 2023, arXiv 2305.15717) prints."""

from imitation_jax.reporting.report_tables import Entry, Table

NQ = {"LLaMA 7B": (17, 10, 22), "LLaMA 13B": (20, 15, 27)}
STYLE = {
    "Lists where the teacher does, %": ("13", "50", "67", "81", "83"),
    "Summary paragraph where the teacher has one, %": ("2", "40", "42", "48", "55"),
    "Words shared with the teacher, %": ("19.5", "40.4", "41.9", "42.5", "49.2"),
    "Correlation of lengths with the teacher's": ("\N{MINUS SIGN}0.11", "0.51", "0.62", "0.62", "0.67"),
    "Authoritative tone, by an LLM judge, %": ("57", "99", "98", "98", "98"),
}

TABLE_1 = Table(
    "paper_table_1",
    "The paper's Table 1",
    "Natural Questions, %. ChatGPT: 31. The paper prints no intervals.",
    ("base", "ShareGPT-Mix", "NQ-synthetic"),
    tuple((name, tuple(Entry(str(value)) for value in values)) for name, values in NQ.items()),
)
TABLE_2 = Table(
    "paper_table_2",
    "The paper's Table 2",
    "Other prompts, base models and detectors than here: compare the order and the size of steps, not the values.",
    ("LLaMA", "20M", "80M", "150M", "ChatGPT, second sample"),
    tuple((label, tuple(Entry(value) for value in values)) for label, values in STYLE.items()),
)
# Of the figures the text tells the shapes, not the values.
SHAPES = {
    "figure1": "Rated equal to ChatGPT or better about 70% of the time whatever the data amount; NQ falls with "
    "imitation data; the rating rises with the base model's size.",
    "figure3": "The LLM judge's rating is flat in the data amount and rises with the base model's size.",
    "figure4": "MMLU, HumanEval and NQ are flat or fall with the data amount and rise with the base model's size.",
    "figure5": "Non-toxicity rises with the data amount.",
    "style": "Style comes nearer to the teacher's with every step of data (Table 2).",
}
