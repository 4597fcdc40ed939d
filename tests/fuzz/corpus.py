"""The kept inputs: an archive for each target, so that the repository has few files."""

from __future__ import annotations

import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FOUND = HERE / "found"
"""TARGET/NAME: an input that failed once, named after its fault."""

_NO_DATE = (1980, 1, 1, 0, 0, 0)


def unpack(target: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    archive = CORPUS / f"{target}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)


def pack(target: str, folder: Path) -> int:
    """The files of `folder` become the target's archive, the same bytes for the same files."""
    CORPUS.mkdir(exist_ok=True)
    contents = sorted({path.read_bytes() for path in folder.iterdir()})
    with zipfile.ZipFile(CORPUS / f"{target}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            # libFuzzer's own names would be longer than most inputs.
            archive.writestr(zipfile.ZipInfo(f"kept-{number}", _NO_DATE), content)
    return len(contents)
