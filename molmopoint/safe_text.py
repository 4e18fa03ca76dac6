"""Text of others where it is shown: on terminals and in spreadsheets.

Names, labels, prompts and answers may hold characters that a terminal obeys (escape sequences move the
cursor, rename the window, or type for the user) and cells that a spreadsheet computes. What is shown here can
be read and does nothing.
"""

from __future__ import annotations

import re

_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, delete, C1
    "\u061c\u202a-\u202e\u2066-\u2069"  # order of writing: what follows would be shown in another place than it stands
    "\u2028\u2029"  # line ends to some programs
    "\ud800-\udfff"  # half characters, which no stream can be given
    "]"
)

_SHORT_ESCAPES = {"\r": "\\r", "\n": "\\n", "\t": "\\t"}
_LINE_ENDS = re.compile("[\n\t]")

_FORMULA_SIGNS = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are as wide as a Chinese character
_NEEDS_QUOTE = re.compile(f"'*[{_FORMULA_SIGNS}]")
_HAS_QUOTE = re.compile(f"'+[{_FORMULA_SIGNS}]")


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey.

    Control characters but newline and tab, marks that turn the order of writing, and half characters become
    escapes such as `\x1b`, so that a reader sees that they are there. Text without them is returned as it is.
    """
    return _OBEYED.sub(lambda found: _python_escape(found[0]), text)


def printable_name(name: object) -> str:
    r"""A file name as a part of a line: also without line ends and tabs, with which a name could pretend to be
    a line of its own.
    """
    return _LINE_ENDS.sub(lambda found: _python_escape(found[0]), printable(str(name)))


def printable_json(text: str) -> str:
    r"""The same for a JSON document: escapes such as `\u001b`, so that it still means what it meant."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table_cell(text: str) -> str:
    """Text as a cell of a CSV file that a spreadsheet does not take as a formula: an apostrophe stands before
    such a one.

    Numbers are not for this function: a cell of -3.5 stays a number.
    """
    return f"'{text}" if _NEEDS_QUOTE.match(text) else text


def from_table_cell(cell: str) -> str:
    """The text that `table_cell` was given."""
    return cell[1:] if _HAS_QUOTE.match(cell) else cell


def _python_escape(character: str) -> str:
    number = ord(character)
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
