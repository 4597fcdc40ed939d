"""The words of code, pages and tests: phrases that a reader has to puzzle out are found.

A phrase that reads well in one place may still be wrong in most; where it is right, another
wording is as good.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.skips import lack

ROOT = Path(__file__).resolve().parents[1]

_MARK = r'(?:"""|# |/\* |// |^ *\* |[.:;] )'
"""What a sentence begins behind."""


class Phrase(NamedTuple):
    """`example` has it, `fine` resembles it and does not."""

    pattern: str
    instead: str
    example: str
    fine: str


PHRASES = (
    Phrase(
        rf"(?:{_MARK}Who|[;:,] who) (?:has|waits|comes|reads|sends|spins|asks|finds|answers|knocks"
        r"|dials|tells|goes|takes|starts|remembers|floods)\b",
        "name the process, thread or side: 'the writer waits', 'a client that dials'",
        "# Who has the pipes is their owner.",
        "A server knows its users, and who they are.",
    ),
    Phrase(
        r"(?i)\b(?:for|by|of|to|on|from|with) who\b",
        "name the process, thread or side",
        "Clear up after and for who never got in",
        "for those who connect",
    ),
    Phrase(
        r"\b(?:[Nn]obody|[Ss]omebody|[Aa]nybody|[Ss]omeone)\b(?![-'])",
        "name what it is: 'no thread reads the link', 'another process'",
        "Nobody reads the link in the background.",
        "the user nobody's files",
    ),
    Phrase(
        r"(?i)\bwhoever\b",
        "name it: 'the thread that locks it'",
        "Whoever waits is woken.",
        "whatever its size",
    ),
    Phrase(
        r"\btest_\w*?_(?:who|whom|nobody|somebody|anybody|everybody|is_told|is_said|hears?)(?:_|\b)",
        "say what is tested: 'test_a_waiting_client_gets_an_error'",
        "def test_who_waits_is_told() -> None:",
        "def test_a_waiting_client_gets_an_error() -> None:",
    ),
    Phrase(
        r"(?i)(?<!there )(?<!there\n)\bis no (?!longer\b|more\b|less\b|different\b|better\b)[a-z]",
        "'is not a', or 'invalid'",
        "'3' is no value",
        "There is no thread, and it is no longer used.",
    ),
    Phrase(
        r"(?i)\bwhat is no\b|\bthat is none\b",
        "'an object that is not a …'",
        "ValueError for what is no target",
        "what is not a target",
    ),
    Phrase(
        r"(?i)\b(?:to|can(?:not)?) be had\b",
        "'is not available'",
        "no socket is to be had",
        "to be handled",
    ),
    Phrase(
        r"(?i)\bdoes nothing more\b|\bchanges nothing more\b",
        "'has no further effect'",
        "a second call does nothing more",
        "it does nothing",
    ),
    Phrase(
        r'"""(?:\w+ )?[Ww]hether\b',
        "'True if …' for an attribute, 'Return True if …' for a function",
        '"""Whether the plain reply does not do."""',
        '"""True if the plain reply cannot be used, or whether it was."""',
    ),
    Phrase(
        r"(?i)\bwithout a word\b|\bgets a word\b|\bneeds a word\b",
        "'silently', 'has to be allowed by an option'",
        "dropped without a word",
        "a word of 64 bits",
    ),
    Phrase(
        r"\bof (?:ours|theirs|localrpc's|grpcio's|gRPC's|Python's|the (?:user|client|server)'s)"
        r"(?=[.,;:)]|$| (?:is|are|has|may|on|in|with|to|that|which|whose|and|runs?)\b)",
        "'a localrpc channel', 'one of grpcio'",
        "a channel of localrpc's, and more",
        "an option of grpcio's channels",
    ),
    Phrase(
        r"\b(?:Doors?|Doorman|Guests|Keeper|Courier|Porter|\w*Medium|Knocks?|MeetingListener)\b",
        "AcceptLoop, ConnectionQuota, Connector, CallbackQueue, ReceiverThread, ByteChannel",
        "class Keeper:",
        "class HouseKeeper:",
    ),
    Phrase(
        # DIR/TOKEN.knock and DIR/TOKEN/knock are names of files in a spool.
        r"(?i)(?<![./\"'])\bknock(?:s|ed|er|ing)?\b(?![\"'])",
        "'send a connect request'",
        "the client knocks at the server's queue",
        "the file TOKEN.knock, or TOKEN/knock",
    ),
    Phrase(
        r"\b(?:transports\.(?:media|meeting|handed)|meeting_target)\b",
        "byte_channels, connect_requests, passed_sockets, two_process_target",
        "from localrpc.transports.meeting import new_token",
        "media",
    ),
    Phrase(
        r"(?i)\bdeaf\b|\bbreathes?\b|\bbur(?:y|ies|ied)\b",
        "say what it does not do, or what it releases: 'a handler that reads nothing'",
        "a deaf handler",
        "a default",
    ),
    Phrase(
        r"\bowed\b",
        "name the amount: 'outstanding', 'unread', 'still to be sent'",
        "more CREDIT than was owed",
        "A fast transport owes its speed to spinning.",
    ),
    Phrase(
        r"\bfor ever\b",
        "'forever', or what it does: 'never returns'",
        "it would wait for ever",
        "for everything, and for every call",
    ),
    Phrase(
        r"(?i)\bthan (?:was|were) said\b|\b(?:was|were|is|are) (?:never said|said twice)\b"
        r"|\ba frame that cannot be\b",
        "'announced', 'defined', 'declared'; 'an invalid frame'",
        "more DATA than was said",
        "as PROTOCOL.md says",
    ),
    Phrase(
        r"(?i)\b(?:is|are|has|have) to be told\b|\bhas to say\b|\bsomething to say\b",
        "name the message and its receiver: 'the client gets an error', 'a frame to the peer'",
        "what the peer is to be told",
        "a frame to the peer",
    ),
    Phrase(
        r"(?i)\bkernel's word\b|\ba word of it\b",
        "'according to the kernel', 'before it trusts anything in it'",
        "the kernel's word for whose it is",
        "a futex word",
    ),
    Phrase(
        r"(?i)\b(?:do|does|would|will) not do(?: for\b|[.,;:)\"]|$)",
        "'cannot be used', 'is not enough'",
        "ffi.gc() would not do: the collector",
        "what it does not do while it reads",
    ),
    Phrase(
        r"(?i)\bturned away\b|\blet in\b(?! )",
        "'refused', 'accepted'",
        "the client is turned away",
        "let into a set",
    ),
)

EXEMPT = ("LICENSE", "tests/test_words.py")


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        lack("not a git repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    names = [name for name in listed.split("\0") if name and name not in EXEMPT]
    return [name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def found_in(name: str, text: str, phrases: tuple[Phrase, ...] = PHRASES) -> list[str]:
    """`file:line: the phrase; what to write instead`, for each."""
    found = []
    for phrase in phrases:
        for match in re.finditer(phrase.pattern, text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: {match[0].strip()!r}; write {phrase.instead}")
    return found


def test_no_file_has_a_phrase_to_puzzle_out() -> None:
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text
        found += found_in(name, text)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: str(phrase.example))
def test_each_phrase_is_found_and_its_correction_is_not(phrase: Phrase) -> None:
    (found,) = found_in("a.py", f"\n{phrase.example}\n", (phrase,))
    assert found.startswith("a.py:2: ")
    assert found_in("a.py", f"\n{phrase.fine}\n", (phrase,)) == []
