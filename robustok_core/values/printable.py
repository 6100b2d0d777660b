r"""Text that robustok did not write, made safe to print: names of files, classes, runs, stages; messages of libraries.

A control character moves the cursor or changes the terminal, a bidirectional override reorders what is read, half a
surrogate pair cannot be encoded. Each is shown as its escape: "\u001b". In TOML, this means the same text.
"""

from __future__ import annotations

import unicodedata

#: Control characters, format characters, unpaired surrogates, and separators of lines and paragraphs.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
#: Format characters that words are written with: in Persian and Indian scripts, and in emoji.
_JOINERS = {"\u200c", "\u200d"}


def printable(text: object) -> str:
    """One line of text in which every character can be printed."""
    return "".join(map(_shown, str(text)))


def printable_lines(text: object) -> str:
    """As `printable`; ends of lines stay, tabs become spaces."""
    return "\n".join(printable(line) for line in str(text).expandtabs(4).split("\n"))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED or character in _JOINERS:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
