"""A code-search service. Run: python server.py TARGET [--grpcio]"""

from __future__ import annotations

import argparse
import functools
import itertools
import signal
from collections.abc import Iterator
from concurrent import futures

import grpc
from generated.search_localrpc import SearchServicer, add_SearchServicer_to_server
from generated.search_pb2 import File, Hit, Line, Query, Ranking, Summary
from index import Index, Result

import localrpc

_HITS = 10


class Tree:
    """One index, and its recent answers."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.search = functools.lru_cache(maxsize=256)(index.search)


class Search(SearchServicer):
    def __init__(self) -> None:
        # Replaced as a whole: a search sees one tree or the other.
        self._tree = Tree(Index())

    def Index(self, request_iterator: Iterator[File], context: grpc.ServicerContext) -> Summary:
        index = Index()
        for file in request_iterator:
            index.add(file.path, file.text)
        self._tree = Tree(index)
        return Summary(
            files=len(index.documents),
            lines=index.lines,
            characters=index.characters,
            trigrams=index.trigrams,
        )

    def Find(self, request: Query, context: grpc.ServicerContext) -> Ranking:
        if not request.text.strip():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a query needs at least one word")
        tree = self._tree
        return _ranking(tree.index, request, tree.search(request.text))

    def Lines(self, request: Query, context: grpc.ServicerContext) -> Iterator[Line]:
        tree = self._tree
        lines = _lines(tree.index, tree.search(request.text))
        return itertools.islice(lines, request.limit or None)

    def Refine(
        self, request_iterator: Iterator[Query], context: grpc.ServicerContext
    ) -> Iterator[Ranking]:
        index = self._tree.index
        result = None
        for query in request_iterator:
            result = index.search(query.text, within=result)
            yield _ranking(index, query, result)


def _lines(index: Index, result: Result) -> Iterator[Line]:
    for match in result.matches:
        path = index.documents[match.number].path
        for number, text in index.lines_with(match.number, result.words):
            yield Line(path=path, number=number, text=text)


def _ranking(index: Index, query: Query, result: Result) -> Ranking:
    return Ranking(
        query=query.text,
        files=len(result.matches),
        examined=result.examined,
        hits=[
            Hit(
                path=index.documents[match.number].path,
                score=match.score,
                matches=match.count,
            )
            for match in result.matches[: query.limit or _HITS]
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve code search.")
    parser.add_argument("target", help="shm:NAME, unix:PATH, ...")
    parser.add_argument("--grpcio", action="store_true", help="use grpcio instead of localrpc")
    arguments = parser.parse_args()

    pool = futures.ThreadPoolExecutor(max_workers=10)
    server = grpc.server(pool) if arguments.grpcio else localrpc.server(pool)
    add_SearchServicer_to_server(Search(), server)
    server.add_insecure_port(arguments.target)
    server.start()
    if arguments.grpcio:
        signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=1))
    else:
        localrpc.stop_on_signals(server, grace=1)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
