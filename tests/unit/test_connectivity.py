"""How a channel comes to a connection: without one, and with a clock of the test's own."""

from __future__ import annotations

import gc

import grpc
import pytest

from localrpc.calls.connectivity import Backoff, Connectivity, News, NotReady, State
from localrpc.errors import ConnectError

Code = grpc.StatusCode
Heard = grpc.ChannelConnectivity
LATE = (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Ear:
    """A subscriber that records its calls."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def __call__(self, state: Heard) -> None:
        self.heard.append(state)


def tell(news: News) -> None:
    for call in news:
        call()


def ending_of(
    state: Connectivity, now: float, until: float | None, *, wait_for_ready: bool
) -> tuple[grpc.StatusCode, str] | None:
    """How a call ends after a failed attempt; None: it goes on."""
    try:
        state.check(now, until, wait_for_ready=wait_for_ready)
    except NotReady as reason:
        return reason.ending
    return None


def failure(*, final: bool = False) -> ConnectError:
    error = ConnectError("unix:x", "nothing listens")
    error.final = final
    return error


# ---- backoff ----


def test_each_pause_is_twice_the_last_up_to_the_most() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_first_pause_is_no_longer_than_the_most() -> None:
    backoff = Backoff(5.0, 3.0)
    assert [backoff.next() for _ in range(2)] == [3.0, 3.0]


# ---- does a call give up? ----


@pytest.mark.parametrize(
    ("wait_for_ready", "final", "now", "expected"),
    [
        (False, False, 1.0, "failure"),
        (False, True, 1.0, "failure"),
        (True, False, 1.0, None),
        (True, True, 1.0, "failure"),  # another attempt would meet the same
        (False, False, 10.0, "late"),
        (True, False, 10.0, "late"),
        (True, True, 10.0, "late"),
    ],
)
def test_the_verdict_for_a_call_after_a_failed_attempt(
    wait_for_ready: bool, final: bool, now: float, expected: str | None
) -> None:
    state = Connectivity()
    error = failure(final=final)
    state.begin()
    state.failed(error)
    ending = ending_of(state, now, until=10.0, wait_for_ready=wait_for_ready)
    assert ending == {"failure": (Code.UNAVAILABLE, str(error)), "late": LATE, None: None}[expected]


def test_a_call_without_a_deadline_is_never_late() -> None:
    state = Connectivity()
    state.begin()
    state.failed(failure())
    assert ending_of(state, 1e9, None, wait_for_ready=True) is None


def test_an_attempt_cut_short_is_not_a_failure_of_the_target() -> None:
    state = Connectivity()
    state.begin()
    state.failed(None)
    assert state.state is State.TRANSIENT_FAILURE
    assert not state.hopeless
    assert ending_of(state, 10.0, until=10.0, wait_for_ready=False) == LATE


def test_a_connection_makes_a_failure_forgotten() -> None:
    state = Connectivity()
    state.begin()
    state.failed(failure(final=True))
    assert state.hopeless
    state.begin()
    state.connected()
    assert state.failure is None
    assert not state.hopeless


# ---- subscribers ----


def test_a_subscriber_gets_the_present_state_and_each_change_once() -> None:
    state, ear = Connectivity(), Ear()
    tell(state.subscribe(ear, try_to_connect=False))
    for news in (
        state.begin(),
        state.failed(failure()),
        state.begin(),
        state.connected(),
        state.lost(),
        state.lost(),
    ):
        tell(news)
    assert ear.heard == [
        Heard.IDLE,
        Heard.CONNECTING,
        Heard.TRANSIENT_FAILURE,
        Heard.CONNECTING,
        Heard.READY,
        Heard.IDLE,
    ]


def test_states_have_the_names_of_grpcs() -> None:
    assert [state.name for state in State] == [state.name for state in Heard]


def test_closing_notifies_no_subscriber() -> None:
    state, ear = Connectivity(), Ear()
    state.subscribe(ear, try_to_connect=True)
    assert state.closed() == [ear]
    assert state.state is State.SHUTDOWN
    assert not state.subscribed
    assert ear.heard == []


def test_a_closed_channel_stays_closed() -> None:
    """Whatever an attempt that goes on meanwhile comes to."""
    state, ear = Connectivity(), Ear()
    state.begin()
    state.closed()
    state.subscribe(ear, try_to_connect=False)
    for news in (state.connected(), state.lost(), state.begin(), state.failed(failure())):
        assert news == []
        assert state.state is State.SHUTDOWN
    assert ear.heard == []


def test_one_of_two_equal_subscriptions_is_taken_back() -> None:
    state, ear = Connectivity(), Ear()
    state.subscribe(ear, try_to_connect=False)
    state.subscribe(ear, try_to_connect=False)
    state.unsubscribe(ear)
    assert state.subscribers == [ear]
    state.unsubscribe(Ear())
    assert state.subscribers == [ear]
    state.unsubscribe_all()
    assert not state.subscribed


# ---- connecting for subscribers ----


def test_a_passive_subscriber_causes_no_connection() -> None:
    state = Connectivity()
    state.subscribe(Ear(), try_to_connect=False)
    assert not state.starts_connecting()
    assert not state.goes_on_connecting()


def test_one_thread_connects_for_all_subscribers() -> None:
    state = Connectivity()
    for _ in range(2):
        state.subscribe(Ear(), try_to_connect=True)
    assert state.starts_connecting()
    assert not state.starts_connecting()
    assert state.goes_on_connecting()
    state.begin()
    state.failed(failure())
    assert not state.has_connected()
    assert state.goes_on_connecting()
    state.begin()
    state.connected()
    assert state.has_connected()


def test_no_thread_retries_a_final_failure() -> None:
    state = Connectivity()
    state.subscribe(Ear(), try_to_connect=True)
    assert state.starts_connecting()
    assert state.goes_on_connecting()
    state.begin()
    state.failed(failure(final=True))
    assert state.has_connected()


def test_a_connection_that_is_lost_is_not_made_again_by_itself() -> None:
    """As in grpcio: the channel is idle until the next call."""
    state = Connectivity()
    state.subscribe(Ear(), try_to_connect=True)
    assert state.starts_connecting()
    assert state.goes_on_connecting()
    state.begin()
    state.connected()
    assert state.has_connected()
    state.lost()
    assert not state.starts_connecting()
    assert not state.goes_on_connecting()


@pytest.mark.parametrize("how", ["unsubscribed", "closed"])
def test_the_thread_ends_with_its_reason(how: str) -> None:
    state, ear = Connectivity(), Ear()
    state.subscribe(ear, try_to_connect=True)
    assert state.starts_connecting()
    if how == "closed":
        state.closed()
    else:
        state.unsubscribe(ear)
    assert not state.goes_on_connecting()


def test_news_hold_nothing_but_the_subscriber() -> None:
    state, ear = Connectivity(), Ear()
    news = state.subscribe(ear, try_to_connect=False)
    assert state not in gc.get_referents(*news)
