"""The interpreter that forks those of `interpreters`: it has the imports, and no test's."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys

LARGEST = 1 << 17
"""Bytes of a request."""

_OTHERS = """
import asyncio, atexit, os, signal, subprocess, sys, threading
from concurrent import futures
import grpc, grpc.aio
from google.protobuf import descriptor_pool
"""
_OURS = """
import localrpc, localrpc.aio
localrpc.server, localrpc.insecure_channel, localrpc.fork_channel, localrpc.spawn_channel
"""


def next_program() -> str:
    """Fork whenever this is requested, and return the program in the child. Ends the parent."""
    exec(_OTHERS, {})
    # What the collector visits is copied, which takes most of a program's time. Python's and
    # grpc's modules are left out of its last collection; localrpc's are in it, as always.
    gc.collect()
    gc.freeze()
    exec(_OURS, {})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    children: dict[int, tuple[int, socket.socket]] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd in children:
                poller.unregister(fd)
                pid, reports = children.pop(fd)
                os.close(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                reports.send(b"%d" % status, socket.MSG_NOSIGNAL)
                reports.close()
                continue
            request, fds, _, _ = socket.recv_fds(control, LARGEST, 4)
            if not request:
                control.close()
                sys.exit()
            if pid := os.fork():
                reports = socket.socket(fileno=fds[0])
                reports.send(b"%d" % pid)
                for each in fds[1:]:
                    os.close(each)
                pidfd = os.pidfd_open(pid)
                children[pidfd] = pid, reports
                poller.register(pidfd, select.POLLIN)
                continue
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, each in enumerate(fds[1:]):
                os.dup2(each, number)
            control.close()
            for pidfd, (_, reports) in children.items():
                os.close(pidfd)
                reports.close()
            for each in fds:
                os.close(each)
            code, arguments = json.loads(request)
            sys.argv[1:] = arguments
            return str(code)
