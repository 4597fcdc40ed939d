"""An inverted index of trigrams over source files: substring search with ranking."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# BM25's usual constants: saturation by repetition, and the influence of length.
_SATURATION = 1.2
_LENGTH = 0.75
# A file that defines a word, or is named after it, is more likely what the user looks for.
_DEFINES = 2.0
_NAMED = 1.5


@dataclass(frozen=True)
class Document:
    path: str
    text: str
    folded: str
    """In lower case, for the search. Its lines are those of the text."""


@dataclass(frozen=True)
class Match:
    """A document that contains every word of a query."""

    number: int
    score: float
    count: int


@dataclass(frozen=True)
class Result:
    """The documents that a query found, best first, and how many were examined."""

    words: tuple[str, ...]
    matches: tuple[Match, ...]
    examined: int


class Index:
    """Fill it from one thread; then any number of threads may search it."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.lines = 0
        self.characters = 0
        # Trigram -> numbers of the documents that contain it, ascending.
        self._postings: dict[str, list[int]] = {}

    @property
    def trigrams(self) -> int:
        return len(self._postings)

    def add(self, path: str, text: str) -> None:
        document = Document(path, text, text.lower())
        number = len(self.documents)
        self.documents.append(document)
        self.lines += text.count("\n") + (not text.endswith("\n") and text != "")
        self.characters += len(text)
        # The words of a query contain no white space, so trigrams with white space would find
        # nothing; and distinct words are a fraction of the text.
        for trigram in {t for word in set(document.folded.split()) for t in _trigrams(word)}:
            self._postings.setdefault(trigram, []).append(number)

    def search(self, query: str, within: Result | None = None) -> Result:
        """Return every document that contains all words of `query`, ignoring case.

        `within` is the result of an earlier query: if this one only adds to it, no other
        documents are examined.
        """
        words = tuple(dict.fromkeys(query.lower().split()))
        if not words:
            return Result((), (), 0)
        candidates = self._candidates(words)
        if within is not None and _narrows(words, within.words):
            known = {match.number for match in within.matches}
            candidates = [number for number in candidates if number in known]
        weights = [self._weight(word) for word in words]
        matches = []
        for number in candidates:
            folded = self.documents[number].folded
            counts = [folded.count(word) for word in words]
            if all(counts):
                score = self._score(number, words, weights, counts)
                matches.append(Match(number, score, sum(counts)))
        matches.sort(key=lambda match: (-match.score, match.number))
        return Result(words, tuple(matches), len(candidates))

    def lines_with(self, number: int, words: Collection[str]) -> Iterator[tuple[int, str]]:
        """Yield number, from 1, and text of each line of a document that contains all the words."""
        document = self.documents[number]
        rarest = min(words, key=document.folded.count)
        if rarest not in document.folded:
            return
        pairs = zip(document.folded.split("\n"), document.text.split("\n"), strict=True)
        for line, (folded, text) in enumerate(pairs, 1):
            if rarest in folded and all(word in folded for word in words):
                yield line, text

    def _candidates(self, words: Collection[str]) -> list[int]:
        """Return documents with every trigram of every word: all that match, and a few more."""
        postings = [self._postings.get(t, []) for word in words for t in _trigrams(word)]
        if not postings:
            # Words of one or two letters have no trigram.
            return list(range(len(self.documents)))
        shortest, *longer = sorted(postings, key=len)
        return sorted(set(shortest).intersection(*longer))

    def _weight(self, word: str) -> float:
        """Return a weight, higher for rarer words, from how many documents have it, at most."""
        total = len(self.documents)
        holding = min((len(self._postings.get(t, [])) for t in _trigrams(word)), default=total)
        return math.log(1 + (total - holding + 0.5) / (holding + 0.5))

    def _score(
        self, number: int, words: tuple[str, ...], weights: list[float], counts: list[int]
    ) -> float:
        """Return Okapi BM25 over the words, with a bonus for definitions and names."""
        document = self.documents[number]
        length = len(document.text) * len(self.documents) / self.characters
        dampening = _SATURATION * (1 - _LENGTH + _LENGTH * length)
        path = document.path.lower()
        score = 0.0
        for word, weight, count in zip(words, weights, counts, strict=True):
            part = weight * count * (_SATURATION + 1) / (count + dampening)
            if f"def {word}" in document.folded or f"class {word}" in document.folded:
                part *= _DEFINES
            if word in path:
                part *= _NAMED
            score += part
        return score


def _trigrams(word: str) -> set[str]:
    return {word[at : at + 3] for at in range(len(word) - 2)}


def _narrows(words: Collection[str], earlier: Collection[str]) -> bool:
    """Return True if every text that contains `words` also contains `earlier`."""
    return bool(earlier) and all(any(old in new for new in words) for old in earlier)
