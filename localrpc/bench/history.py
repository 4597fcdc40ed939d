"""A project's own baselines: every run is saved under a name, and the newest one counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .document import Document, UnreadableDocument, load

DIRECTORY = Path(".localrpc/bench")
DEFAULT = "main"


class History:
    def __init__(self, directory: Path, name: str) -> None:
        """Raise ValueError unless `name` can be the name of a folder."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ValueError(f"a baseline's name has letters, digits, . _ and -, unlike {name!r}")
        self._name = name
        self._parent = directory
        self._folder = directory / name

    def save(self, document: dict[str, Any]) -> Path:
        """Write one more file, named after the time when the run ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        moment = re.sub(r"[^0-9T]", "", str(document["ended"]).partition("+")[0])
        path = self._folder / f"{moment}.json"
        number = 1
        while path.exists():
            number += 1
            path = self._folder / f"{moment}-{number}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path

    def newest(self) -> Document:
        """Return the newest run. Raises UnreadableDocument, listing the names, if there is none."""
        # Compare so that "…T080000-2" comes after "…T080000", as plain strings would not.
        files = sorted(self._folder.glob("*.json"), key=lambda path: _order(path.stem))
        if not files:
            names = sorted(path.parent.name for path in self._parent.glob("*/*.json"))
            known = f"; the baselines are {', '.join(dict.fromkeys(names))}" if names else ""
            raise UnreadableDocument(
                f"no baseline {self._name!r} in {self._parent}{known}: "
                f"localrpc bench --save-baseline {self._name}"
            )
        return load(files[-1])


def _order(stem: str) -> tuple[str, int]:
    moment, _, number = stem.partition("-")
    return moment, int(number) if number.isdigit() else 1
