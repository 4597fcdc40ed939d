"""Programs written with grpcio alone on the other side of grpc:, in both directions."""

from __future__ import annotations

import grpc

import localrpc

from .conftest import CERTIFICATE, KEY, Home, grpcio_calls, grpcio_server
from .grpcio_peers import EXPECTED, failure, play


def test_a_grpcio_client_calls_our_server(home: Home) -> None:
    target = home.open()
    home.server.start()
    assert grpcio_calls(target.removeprefix("grpc:")) == EXPECTED


def test_we_call_a_grpcio_server() -> None:
    with grpcio_server() as port, localrpc.insecure_channel(f"grpc:127.0.0.1:{port}") as channel:
        assert play(channel) == EXPECTED


def test_the_same_calls_give_the_same_over_a_local_link(home: Home, one_target: str) -> None:
    home.open()
    target = home.open(one_target)
    home.server.start()
    assert play(home.dial(target)) == EXPECTED


def test_a_grpcio_client_calls_our_server_over_tls(home: Home) -> None:
    pair = KEY.read_bytes(), CERTIFICATE.read_bytes()
    credentials = grpc.ssl_server_credentials([pair])
    port = home.server.add_secure_port("grpc:127.0.0.1:0", credentials)
    home.server.start()
    assert grpcio_calls(f"127.0.0.1:{port}", str(CERTIFICATE)) == EXPECTED


def test_we_call_a_grpcio_server_over_tls() -> None:
    credentials = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
    with (
        grpcio_server(str(CERTIFICATE), str(KEY)) as port,
        localrpc.secure_channel(f"grpc:dns:///localhost:{port}", credentials) as channel,
    ):
        assert play(channel) == EXPECTED


def test_a_client_that_does_not_trust_the_certificate_gets_no_answer(home: Home) -> None:
    pair = KEY.read_bytes(), CERTIFICATE.read_bytes()
    port = home.server.add_secure_port("grpc:127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    home.server.start()
    echo = home.method(f"grpc:127.0.0.1:{port}", "echo")
    assert failure(lambda: echo(b"x")).code() is grpc.StatusCode.UNAVAILABLE
