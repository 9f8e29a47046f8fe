"""Is a question simple enough for a cheaper model? A measure of its form, the same for the same words every time.

Called by `route` for agents whose `routing` is `auto`. It asks no model and costs microseconds; it cannot understand
anything, so a doubt counts for the better model. Points are added up, `COMPLEX` of them make a question complex:

    points  for
    1 or 2  more than 40 words, more than 120
    2       code: a fence, or two lines that look like it
    1       two lines of a list, or two question marks
    1       four numbers, or an equation
    1       a word that asks for reasoning (English): why, compare, explain, prove, step by step …
    1       more than six messages before it
"""

import re

from agents.api import Prompt

COMPLEX = 2

_LONG_WORDS, _VERY_LONG_WORDS = 40, 120
_LONG_HISTORY = 6
_LOOKED_AT_CHARS = 4_000
"""Of a text that is longer, its length has said it already."""
_CODE_LINE = re.compile(
    r"[;{}]$|^[ \t]*(def |class |import |from \S+ import|SELECT |return |\$ |at \S+\()|=>|::|\w\([^()\n]*\)$",
    re.MULTILINE,
)
_LIST_LINE = re.compile(r"^[ \t]*([-*•]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
_NUMBER = re.compile(r"\d+([.,]\d+)*")
_EQUATION = re.compile(r"\d\s*[-+*/^=<>]\s*\d|\w\s*=\s*\w")
_REASONING = re.compile(
    r"\b(why|compare|comparison|difference|explain|analy[sz]e|prove|derive|evaluate|trade-?offs?|step by step"
    r"|pros and cons|design|debug|refactor|optimi[sz]e|summari[sz]e|translate)\b",
    re.IGNORECASE,
)


def points(prompt: Prompt) -> int:
    """Of the last message in its conversation, by the table above."""
    text = prompt.messages[-1].content if prompt.messages else ""
    words = len(text.split())
    text = text[:_LOOKED_AT_CHARS]
    found = (words > _LONG_WORDS) + (words > _VERY_LONG_WORDS)
    found += 2 * ("```" in text or _at_least(2, _CODE_LINE, text))
    found += _at_least(2, _LIST_LINE, text) or text.count("?") > 1
    found += _at_least(4, _NUMBER, text) or bool(_EQUATION.search(text))
    found += bool(_REASONING.search(text))
    return found + (len(prompt.messages) - 1 > _LONG_HISTORY)


def is_complex(prompt: Prompt) -> bool:
    return points(prompt) >= COMPLEX


def _at_least(n: int, pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.finditer(text)
    return all(next(found, None) for _ in range(n))
