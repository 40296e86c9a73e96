"""What a user's query asks for, guessed from its words: the categories of the paper's sample of 50 ShareGPT queries.

A heuristic, not a measurement. Ordered patterns on the beginning and the end of a query (what is pasted for the model
to work on stands between or behind); the first that fits decides, and what fits none is chat where it is short and
generation where it is long. Of 72 English prompts (Koala's) it puts 65 where a human reader did, who left out those of
which two categories are true; so shares are good for a look and to compare datasets, and for nothing finer.
"""

import re

CATEGORIES = (
    "generation",
    "question answering",
    "coding",
    "brainstorming",
    "chat",
    "summarisation",
    "rewrite",
    "non-English",
    "invalid",
)
ENDS = 300  # characters looked at, at either end
SMALL_TALK_WORDS = 12
FEW_WORDS = 6


def _any_of(phrases: str, start: str = "") -> re.Pattern:
    """Finds any of the comma-separated patterns as whole words, in upper or lower case."""
    joined = "|".join(filter(None, (phrase.strip() for phrase in phrases.split(","))))
    return re.compile(rf"{start}\b(?:{joined})\b", re.IGNORECASE | re.DOTALL)


# Code itself, wherever it stands in a query.
CODE = re.compile(
    r"""```
    |^[ \t]*(?:def\ \w+\(|class\ \w+[:({]|import\ \w+|from\ [\w.]+\ import\ |\#include|<\?php|</?(?:div|html|script)\b)
    |^[ \t]*(?:public|private|protected|static|const|let|var|function|async)\s+\w+.*[({=;]
    |\bSELECT\b[^.?!]{1,200}\bFROM\b
    |^Traceback\ \(most|\b\w+(?:Error|Exception):\ |^\$\ (?:pip|npm|git|sudo|cd|docker)\b
    |(?:[;{}]\s*\n.*){3}""",
    re.VERBOSE | re.MULTILINE,
)
ABOUT_CODE = _any_of(
    r"""python, javascript, typescript, java, kotlin, golang, fortran, cobol, haskell, matlab, php, sql, mysql,
    postgres\w*, sqlite, mongodb, html5?, css, scss, jquery, node\.?js, next\.?js, react(\.?js| native| component),
    vue(\.?js)?, angular, django, flask, fastapi, laravel, spring boot, pandas, numpy, pytorch, tensorflow, keras,
    scikit-learn, docker\w*, kubernetes, terraform, ansible, nginx, bash, powershell, vba, regex, regular expressions?,
    json, yaml, arduino, raspberry pi, godot, unity3d, opengl, github, git, linux, ubuntu,
    api (key|endpoint|call|request)s?, rest(ful)? api, leetcode, pseudocode, source code, codebase, coding, programming,
    programmers?, unit tests?, stack ?trace, debug(ging)?, compil(e|er|ation), backend, front-?end, boolean,
    excel (formula|macro), google sheets? formula, chrome extension, wordpress plugin, smart contract, solidity,
    data (model|structure)s?, database (schema|table|query), (shell|batch) script,
    (?<!dress )(?<!zip )(?<!area )(?<!qr )(?<!promo )(?<!tax )(?<!penal )(?<!civil )(?<!postal )code(?! of )"""
)
C_FAMILY = re.compile(r"(?<!\w)(?:c\+\+|c#|(?:asp)?\.net\b)", re.IGNORECASE)
SUMMARY = _any_of(
    r"""summ?ari[sz](e|es|ing|ation), (a|an|the|executive|short|brief|quick) summary, tl;?dr, in a nutshell, condense,
    (key|main) (points|takeaways|ideas) (of|from|in)"""
)
REWRITE = _any_of(
    r"""re-?writ(e|ing|ten), re-?phras(e|ing), paraphras(e|ing), re-?word, proof-?read, polish (the|this|my), simplify,
    translat(e|ion), what would you change, (edit|shorten|rework|reformat) (the|this|my|it),
    (correct|fix|check|improve) (the |this |my )?(grammar|spelling|english|text|sentence|paragraph|wording|following),
    (correct|fix|check|improve) (the |this |my )?(writing|essay|email|letter),
    make (it|this|that) (more|less|sound|shorter|longer|better|simpler|\w+er),
    (turn|convert) (the|this|these|it|that)\b.{0,80} (in)?to"""
)
IDEAS = _any_of(
    r"""brainstorm\w*, ideas, idea for, suggest(ions?)?, recommend(ations?)?, come up with, names? for, niches?,
    keywords, topics? (for|about|to), ways to, (top|best) \d+, list of, inspiration,
    what (else )?(can|could|should) i (do|write|make|build|say|cook|tackle|give),
    (give|tell|show|list|find|name)( me| us)? (\d+|ten|twenty|some|a few|several|the list|a list)"""
)
MAKE = _any_of(
    r"""write, draft, compose, generate, craft, create, produce, prepare, design, make (a|an|me), develop (a|an),
    build (a|an), act (as|like), pretend, role-?play, simulate, imagine, you are (a|an|the|going), you will,
    phrase an?, article, essay, poem, story, stories, lyrics, song, screenplay, cover letter, blog ?post,
    (lesson|business|project|meal|workout) plan, itinerary, speech, scene, pitch, \d+ words"""
)
ASK = _any_of(
    r"""what, why, how, who, whom, whose, when, where, which, is, are, am, was, were, do, does, did, can, could, should,
    would, will, has, have, explain, describe, define, compare, calculate, solve, discuss, tell me, list, give,
    identify, find, rank, analy[sz]e, evaluate, teach, convert, question, difference, meaning, cost, expand, elaborate,
    introduce, explanation""",
    start=r"^\W*",
)
SMALL_TALK = _any_of(
    r"""hi, hello, hey, thanks?, thank you, ok(ay)?, yes, no, sure, great, good (morning|evening|day), how are you,
    nice, cool, continue, go on, tell me (something|a joke), are you, who are you, what are you, what('s| is) your,
    do you (like|love|feel|have|know|remember|think)""",
    start=r"^\W*",
)
# Politeness, greetings and the counters of shared threads ("2 / 2"), before what is asked.
BEFORE = re.compile(
    r"^(?:\W|\d+ ?/ ?\d+|(?:please|pls|kindly|hi|hello|hey|ok|so|now|and|then|there|chat ?gpt|gpt-?\d*)\b[\s,!.:]*"
    r"|(?:can|could|would|will) you\b|i(?:'d like| want| need| would like) you to\b|help me(?: to)?\b)+",
    re.IGNORECASE,
)


def is_coding(query: str) -> bool:
    """Whether a query holds code or asks about programming."""
    ends = _ends(query)
    return bool(CODE.search(query) or ABOUT_CODE.search(ends) or C_FAMILY.search(ends))


def category(query: str, english: bool) -> str:
    """The one of `CATEGORIES` that a query is taken for.

    Args:
      query: a user's turn.
      english: whether a language detector takes it for English; it decides nothing where there is code.
    """
    if sum(map(str.isalpha, query[: 10 * ENDS])) < 2:
        return "invalid"
    if is_coding(query):
        return "coding"
    if not english:
        return "non-English"
    asked = BEFORE.sub("", query, count=1)
    ends, words = _ends(asked), len(query.split())
    if not asked or (words <= SMALL_TALK_WORDS and SMALL_TALK.search(asked)):
        return "chat"
    if SUMMARY.search(ends):
        return "summarisation"
    if REWRITE.search(ends):
        return "rewrite"
    if MAKE.match(asked):
        return "brainstorming" if IDEAS.search(asked[:80]) else "generation"
    if IDEAS.search(ends):
        return "brainstorming"
    if _asks(asked[:ENDS]) and not MAKE.search(asked[:40]):
        return "question answering"
    if MAKE.search(ends):
        return "generation"
    if _asks(ends):
        return "question answering"
    return "chat" if words <= FEW_WORDS else "generation"


def _asks(text: str) -> bool:
    return "?" in text or bool(ASK.search(text))


def _ends(query: str) -> str:
    return query if len(query) <= 2 * ENDS else f"{query[:ENDS]}\n{query[-ENDS:]}"
