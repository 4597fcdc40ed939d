"""grpc:, targets that grpcio itself carries, on a floor above."""

from __future__ import annotations

import re

from localrpc.transports import registry
from localrpc.transports.scheme import Kind, Scheme, Scope
from localrpc.transports.targets import check_characters


class GrpcScheme(Scheme):
    scheme = "grpc"
    verbatim = True
    kinds = (
        Kind(
            form="TARGET",
            spellings={
                "grpc:TARGET": "a target of gRPC's own: `grpc:host:50051`,"
                " `grpc:dns:///host:50051`, `grpc:unix:/run/me/socket`; with port 0 the server"
                " chooses a port"
            },
            scope=Scope.NETWORK,
            direction="full duplex",
            technique="HTTP/2, carried by grpcio itself",
            credentials="what grpc's credentials say, such as TLS",
        ),
    )

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        check_characters(name)
        scheme, _, rest = name.partition(":")
        # gRPC has Unix sockets too, and a host may have any name.
        ours = scheme in registry.REGISTERED and not scheme.startswith("unix")
        if ours and not re.fullmatch(r"[0-9]*", rest):
            raise ValueError(f"gRPC itself knows no {scheme}: targets; write {name}")
        return name
