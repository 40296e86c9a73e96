"""Passages to summarise, as the public sets hold them.

Under `document` (XSum), `article` (CNN/DailyMail), `content` (Webis-TLDR-17), `prompt` (OpenAI's and TRL's TL;DR sets)
or `passage`. What such a `prompt` asks for itself (TL;DR: at its end, an instruction before it) is taken off.
"""

import re

PASSAGE_KEYS = ("passage", "document", "article", "content", "prompt")
ASKS_BEFORE = re.compile(r"\A\s*(?:Summarize:|Could you please generate a TLDR [^\n]*\n+Article:)")
ASKS_AFTER = re.compile(r"TL;DR:\s*\Z")


def passage_of(row: dict, key: str) -> str:
    """The passage without what asks for a summary."""
    text = row[key]
    return (ASKS_AFTER.sub("", ASKS_BEFORE.sub("", text)) if key == "prompt" else text).strip()
