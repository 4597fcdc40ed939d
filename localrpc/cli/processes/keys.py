"""Bytes from a terminal in, names of keys out."""

from __future__ import annotations

import re

_NAMED = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x1b": "escape",
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
}
# A control sequence (ECMA-48), a function key of the keypad, or any one character. The end of the
# data may be the middle of the first two.
_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|[^\x1b]|\x1b(?=\x1b)", re.DOTALL)
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")
_LONGEST = 32


class KeyParser:
    """Any bytes give keys, each as soon as it is complete; nothing is raised.

    A key is a character, or a name such as "up". Sequences without a name give none.
    """

    def __init__(self) -> None:
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """True if the last byte may be the Escape key, or the beginning of a longer sequence."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        data = self._rest + data
        text = data.decode("utf-8", "replace")
        keys, at = [], 0
        while at < len(text):
            found = _KEY.match(text, at)
            if found is None:
                begun = _BEGUN.match(text, at)
                assert begun is not None  # only an escape character is none of the above
                if begun.end() == len(text) and len(text) - at <= _LONGEST:
                    break
                at = begun.end()
                continue
            at = found.end()
            keys += self._key(found[0])
        self._rest = text[at:].encode()
        return keys

    def flush(self) -> list[str]:
        """Return the keys of what was incomplete; nothing more has come for a moment."""
        rest, self._rest = self._rest.decode(), b""
        return ["escape"] if rest == "\x1b" else []

    def _key(self, sequence: str) -> list[str]:
        name = _NAMED.get(sequence)
        if name is not None:
            return [name]
        return [sequence] if sequence.isprintable() else []
