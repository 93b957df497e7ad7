"""Names and numbers as they are shown: what cannot be seen, or would act on where it is shown, becomes an escape.

Names come from files, folders, cards and run folders of strangers. Control characters move a terminal's cursor and
forge lines; bidirectional overrides make a text read other than it is; zero-width characters make two names one.
"""

from __future__ import annotations

import re

# Control and format characters, line and paragraph separators, lone surrogates (bytes that are no UTF-8), tags, and
# letters that have no width; not those that only join or mark what is visible (variation selectors, Arabic signs).
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U00013430-\U00013455\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
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


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def _units(char: str) -> str:
    """Escapes of JSON: one for each 16 bits."""
    pairs = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[i]:02x}{pairs[i + 1]:02x}" for i in range(0, len(pairs), 2))
