"""Which handler a server's table finds for a call."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from localrpc.calls.handlers import CallDetails, HandlerTable, behaviour_of

FIRST: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: b"first")
SECOND: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: b"second")


class ByMetadata(grpc.GenericRpcHandler):
    """Serves only calls that bring metadata."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return FIRST if handler_call_details.invocation_metadata else None


def service(name: str, **methods: Any) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(name, methods)


def found(table: HandlerTable, name: str, metadata: tuple[Any, ...] = ()) -> Any:
    return table.look_up(CallDetails(name, metadata))


def test_the_handler_that_was_added_first_wins() -> None:
    table = HandlerTable([service("a", b=FIRST)])
    table.add(iter([service("a", b=SECOND, c=SECOND)]))
    assert found(table, "/a/b") is table.by_name("/a/b") is FIRST
    assert found(table, "/a/c") is table.by_name("/a/c") is SECOND


def test_a_registered_handler_precedes_generic_ones() -> None:
    table = HandlerTable([service("a", b=FIRST)])
    table.register("a", {"b": SECOND})
    assert found(table, "/a/b") is table.by_name("/a/b") is SECOND


def test_a_table_hands_grpc_what_it_has_at_the_time_of_the_call() -> None:
    table = HandlerTable([])
    assert table.service(CallDetails("/a/b", ())) is None
    table.add([service("a", b=FIRST)])
    assert table.service(CallDetails("/a/b", ())) is FIRST


def test_an_interceptor_that_changes_the_details_changes_no_registered_method() -> None:
    table = HandlerTable([service("a", other=FIRST)])
    table.register("a", {"b": SECOND})
    assert table.look_up(CallDetails("/a/other", ()), "/a/b") is SECOND
    assert table.look_up(CallDetails("/a/other", ()), "/a/c") is FIRST


def test_a_handler_that_may_differ_by_call_is_not_known_by_name() -> None:
    table = HandlerTable([service("a", b=FIRST), ByMetadata(), service("a", c=SECOND)])
    assert table.by_name("/a/b") is FIRST
    assert table.by_name("/a/c") is None
    assert found(table, "/a/c", (("k", "v"),)) is FIRST
    assert found(table, "/a/c") is SECOND


def test_what_is_known_is_registered_or_in_a_dictionary() -> None:
    table = HandlerTable([service("a", b=FIRST), ByMetadata()])
    table.register("a", {"c": SECOND})
    assert list(table.known()) == [SECOND, FIRST]


@pytest.mark.parametrize("when", ["made", "added"])
def test_an_object_that_finds_no_handlers_is_refused_and_nothing_is_added(when: str) -> None:
    wrong: Any = [service("a", b=FIRST), object()]
    table = HandlerTable([])
    change = HandlerTable if when == "made" else table.add
    with pytest.raises(AttributeError, match='does not have "service" method!'):
        change(wrong)
    assert found(table, "/a/b") is None


@pytest.mark.parametrize("requests", ["unary", "stream"])
@pytest.mark.parametrize("responses", ["unary", "stream"])
def test_the_users_function_is_found_in_a_handler_of_any_kind(
    requests: str, responses: str
) -> None:
    def function(argument: Any, context: Any) -> Any: ...

    make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
    assert behaviour_of(make(function)) is function
