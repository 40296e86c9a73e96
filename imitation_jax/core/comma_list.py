"""Lists in flags and config keys: texts with commas."""


def comma_list(text: object) -> list[str]:
    """The parts of "a, b,c" without the spaces around them; empty ones are none, and a number is a list of itself."""
    return [part for part in map(str.strip, str(text).split(",")) if part]
