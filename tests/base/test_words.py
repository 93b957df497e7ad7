"""Names are shown so that nothing in them acts on the reader, and nothing that can be seen is changed."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata

import pytest

from robustlab.base.words import cell, visible, visible_json
from robustlab.cli import main

# format characters that are seen, or only mark what is: signs before Arabic, Syriac and Kaithi numbers
SEEN = {*range(0x600, 0x606), 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def test_all_that_is_not_seen_is_escaped_and_nothing_else() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        kind = unicodedata.category(char)
        if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in SEEN:
            assert visible(char).isascii() and visible(char).startswith("\\"), hex(code)
        elif kind[0] in "NPSZ" or (kind == "Lo" and "FILLER" not in unicodedata.name(char, "")):
            assert visible(char) == char, hex(code)


NAMES = {
    "plain": ("road-signs/cnn", "road-signs/cnn"),
    "letters of others": ("表 ñ é ไทย हिन्दी 👍🏽 ☂️", "表 ñ é ไทย हिन्दी 👍🏽 ☂️"),
    "colour": ("\x1b[31mred", "\\x1b[31mred"),
    "title of the window": ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
    "one byte": ("\x9b31m", "\\x9b31m"),
    "a line": ("a\r\nb", "a\\r\\nb"),
    "other lines": ("a\u2028b\u2029c\x85", "a\\u2028b\\u2029c\\x85"),
    "override": ("gp\u202egnp.exe", "gp\\u202egnp.exe"),
    "isolates": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "zero width": ("a\u200bb\u200dc\ufeff", "a\\u200bb\\u200dc\\ufeff"),
    "soft hyphen": ("a\xadb", "a\\xadb"),
    "tags": ("a\U000e0041", "a\\U000e0041"),
    "no UTF-8": ("a\udcff", "a\\udcff"),
    "filler": ("\u3164", "\\u3164"),
    "nul": ("\x00", "\\x00"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names(what: str) -> None:
    name, shown = NAMES[what]
    assert visible(name) == shown
    if "\udcff" not in name:
        text = json.dumps([name], ensure_ascii=False)
        assert json.loads(visible_json(text)) == [name]
        assert visible_json(text) == visible(visible_json(text))


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_cell_is_no_formula(name: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([cell(name)])
    (back,) = next(csv.reader(io.StringIO(stream.getvalue())))
    assert back[0] in "'\\"


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["zoo", "x\x1b[31m\u202e\nrobustlab: done"], ["report", "\x1b[2Jx"], ["attack", "a\u200b\x07.py:f"]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err == visible(err, keep="\n")
        assert "\\x" in err
