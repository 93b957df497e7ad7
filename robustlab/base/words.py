"""Names, numbers and lists as they are shown; each way of writing stands here once.

What cannot be seen in a name, or would act on where it is shown, becomes an escape: names come from files, folders,
cards and run folders of strangers. Control characters move a terminal's cursor and forge lines; bidirectional overrides
make a text read other than it is; zero-width characters make two names one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# Control and format characters, line and paragraph separators, lone surrogates (bytes that are no UTF-8), tags, and
# letters that have no width; not those that only join or mark what is visible (variation selectors, Arabic signs).
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U00013430-\U00013455\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SPACE = "\u00a0"  # a number and its unit stay on one line
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms


def visible(text: object, keep: str = "") -> str:
    """A text with what cannot be seen written as Python would write it; `keep`: characters that stay.

    >>> print(visible("cat\\u202e\\x1b[31mgod\\n"))
    cat\\u202e\\x1b[31mgod\\n
    """
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def visible_json(text: str) -> str:
    """The same JSON, with what cannot be seen in its strings as JSON's own escapes.

    >>> print(visible_json('["\\u202e"]'))
    ["\\u202e"]
    """
    return _HIDDEN.sub(lambda found: found[0] if found[0] < " " else _units(found[0]), text)


def cell(text: object) -> str:
    """A text for a cell of a CSV file, which no spreadsheet takes for a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection.

    >>> cell("=1+1"), cell("plain")
    ("'=1+1", 'plain')
    """
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def counted(n: int, what: str = "image") -> str:
    """A number with its noun.

    >>> counted(1), counted(20)
    ('1 image', '20 images')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(words: Sequence[str], word: str = "and") -> str:
    """Words as one phrase; word: "and" or "or".

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    >>> listed(["a", "b"], "or")
    'a or b'
    """
    return f" {word} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def some(names: Sequence[str], most: int) -> str:
    """The first of the names, and dots where there are more.

    >>> some(["a", "b"], 2), some(["a", "b", "c"], 2)
    ('a, b', 'a, b, ...')
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once: those that occur several times get their place behind them.

    >>> distinct(["crane", "goose", "crane"])
    ('crane (0)', 'goose', 'crane (2)')
    """
    often = Counter(names)
    return tuple(f"{name} ({k})" if often[name] > 1 else name for k, name in enumerate(names))


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none.

    >>> first_line(ValueError("no such file\\nat line 3")), first_line(MemoryError())
    ('no such file', 'MemoryError')
    """
    return (str(error) or type(error).__name__).splitlines()[0]


def kind_and_line(error: BaseException) -> str:
    """The kind of an error and its first line: of one that a model raised.

    >>> kind_and_line(ValueError("bad\\nmore")), kind_and_line(KeyError())
    ('ValueError: bad', 'KeyError: no message')
    """
    return f"{type(error).__name__}: {first_line(error) if str(error) else 'no message'}"


def percent(share: Mapping[str, Any] | None) -> str:
    """A share's point estimate; two decimals from n = 5,000 on, where they mean something.

    >>> percent({"value": 0.974, "low": 0.956, "high": 0.985, "n": 500})
    '97.4\\xa0%'
    """
    if share is None or share["value"] is None:
        return "not run"
    return f"{100 * share['value']:.{_digits(share)}f}{_SPACE}%"


def interval(share: Mapping[str, Any] | None) -> str:
    """Its 95 % interval, in per cent.

    >>> interval({"value": 0.974, "low": 0.956, "high": 0.985, "n": 500})
    '95.6–98.5'
    """
    if share is None or share["value"] is None:
        return ""
    digits = _digits(share)
    return f"{100 * share['low']:.{digits}f}–{100 * share['high']:.{digits}f}"


def as_fraction(value: float, digits: int = 6) -> str:
    """A share of the range of an image as people write it: k/255 where it is that, otherwise the number itself.

    >>> as_fraction(8 / 255), as_fraction(0.5), as_fraction(0.123456, 3)
    ('8/255', '0.5', '0.123')
    """
    steps = value * 255
    return f"{round(steps)}/255" if steps >= 0.5 and abs(steps - round(steps)) < 1e-9 else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds, or minutes and hours where they read better.

    >>> duration(3.14159), duration(75), duration(4000)
    ('3.1\\xa0s', '1\\xa0min 15\\xa0s', '1\\xa0h 7\\xa0min')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.{1 if seconds >= 0.1 or not seconds else 2}f}{_SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60}{_SPACE}s"
    return f"{whole // 3600}{_SPACE}h {round(whole % 3600 / 60)}{_SPACE}min"


def rough_duration(seconds: float) -> str:
    """Seconds as an estimate is said, without a precision that it does not have.

    >>> rough_duration(0.2), rough_duration(89), rough_duration(600), rough_duration(8000), rough_duration(300_000)
    ('1 s', '89 s', '10 min', '2 h 13 min', '3 days 11 h')
    """
    whole = max(1, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 90:
        return f"{minutes} min"
    if (hours := round(minutes / 60)) < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def _digits(share: Mapping[str, Any]) -> int:
    return 2 if share["n"] >= 5000 else 1


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def _units(char: str) -> str:
    """Escapes of JSON: one for each 16 bits."""
    pairs = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[i]:02x}{pairs[i + 1]:02x}" for i in range(0, len(pairs), 2))
