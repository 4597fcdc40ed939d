"""The service, and all that a worker needs: `localrpc serve painter:Painter` makes the server."""

from __future__ import annotations

import os

import grpc
from generated.pool_localrpc import PainterServicer
from generated.pool_pb2 import Painted, Row


class Painter(PainterServicer):
    def Paint(self, request: Row, context: grpc.ServicerContext) -> Painted:
        if not (request.width and request.height and request.depth):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a picture has width, height and depth")
        y = (request.number / request.height - 0.5) * 2.4
        points = bytes(
            255 * steps(complex(x / request.width * 3.2 - 2.2, y), request.depth) // request.depth
            for x in range(request.width)
        )
        return Painted(points=points, pid=os.getpid())


def steps(point: complex, most: int) -> int:
    z = 0j
    for step in range(most):
        if abs(z) > 2:
            return step
        z = z * z + point
    return most
