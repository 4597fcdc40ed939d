"""gRPC's Python API between processes of one machine, without the network stack.

Take a program that uses grpcio, and change two calls and the target:

    server = localrpc.server(futures.ThreadPoolExecutor(max_workers=10))
    add_GreeterServicer_to_server(Greeter(), server)
    server.add_insecure_port("shm:greeter")
    server.start()

    with localrpc.insecure_channel("shm:greeter") as channel:
        print(GreeterStub(channel).Greet(Name(name="Ada"), timeout=1).text)

Channels, servers, calls and contexts are subclasses of grpc's own classes. Generated
stubs and servicers, interceptors, deadlines, metadata and status codes work as with
grpcio, and calls fail with grpc.RpcError.

Targets. A target is a string, `scheme:name?option=value&...`:

    shm:NAME            shared memory; the default choice
    unix:PATH           a Unix socket; unix-abstract:NAME, the same without a file
    pipe:               a child process, see spawn_channel and fork_channel
    tcp:HOST:PORT       loopback TCP
    inproc:NAME         client and server in one process, for tests
    grpc:TARGET         any target of grpcio, to reach other machines
    pipe:PATH, mq:NAME, sysvmq:NAME, file:DIR, fd:N
                        FIFOs, message queues, files, a socket of a service manager

`transports()` returns all of them, with their properties and what this machine lacks.
Options tune a target, as in shm:greeter?wakeup=futex; the error for an unknown one lists
those that the scheme has. localrpc.options describes the options of channels and servers.

Security. A server serves its own user and root, and the kernel says who is calling.
The options localrpc.allow_users and localrpc.allow_groups let others in.

Threads. Channels, stubs and servers may be used by any number of threads at once. A
blocking call reads its answer on the thread that made it; there is no reader thread.

Forks. A channel that a forked child inherits connects again with the child's first
call; calls in progress stay the parent's. A server stays with the process that started it.

Numbers. stats() returns what this process's servers and channels count: connections, calls by
status, and how long they lasted. localrpc.observe reads those of other processes.

Types. insecure_channel returns a Channel, whose `facts` are ConnectionFacts; spawn_channel and
fork_channel a ChildChannel; peer_credentials PeerCredentials; transports Offers, each with a
Scope; stats Endpoints, each with Counts and these with a Latency. A bad target is an AddressError,
and a server that cannot listen a ListenError, which is an AddressInUse if another server does.

Testing. localrpc.testing.serving, and the pytest fixture localrpc_serve, serve servicers
inside a test.

The command `localrpc` generates typed code from .proto files, calls methods from a shell,
lists transports, checks a machine, and measures: see `localrpc --help`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from localrpc._later import Later
from localrpc._version import __version__

if TYPE_CHECKING:
    from concurrent import futures

    import grpc

    from localrpc import observe as _observe
    from localrpc import observe as observe
    from localrpc import testing as testing
    from localrpc.errors import AddressError as AddressError
    from localrpc.errors import AddressInUse as AddressInUse
    from localrpc.errors import ListenError as ListenError
    from localrpc.observe import Counts as Counts
    from localrpc.observe import Endpoint as Endpoint
    from localrpc.observe import Latency as Latency
    from localrpc.sync import channel as _channel
    from localrpc.sync import children as _children
    from localrpc.sync.channel import Channel as Channel
    from localrpc.sync.children import ChildChannel as ChildChannel
    from localrpc.transports import base as _base
    from localrpc.transports import scheme as _scheme
    from localrpc.transports.base import ConnectionFacts as ConnectionFacts
    from localrpc.transports.base import PeerCredentials as PeerCredentials
    from localrpc.transports.scheme import Offer as Offer
    from localrpc.transports.scheme import Scope as Scope
else:
    futures = Later("concurrent.futures")
    grpc = Later("grpc")
    _channel = Later("localrpc.sync.channel")
    _children = Later("localrpc.sync.children")
    _observe = Later("localrpc.observe")
    _base = Later("localrpc.transports.base")
    _scheme = Later("localrpc.transports.scheme")

__all__ = [
    "AddressError",
    "AddressInUse",
    "Channel",
    "ChildChannel",
    "ConnectionFacts",
    "Counts",
    "Endpoint",
    "Latency",
    "ListenError",
    "Offer",
    "PeerCredentials",
    "Scope",
    "__version__",
    "fork_channel",
    "insecure_channel",
    "instrument",
    "observe",
    "patch_grpc",
    "peer_credentials",
    "sd_notify",
    "secure_channel",
    "serve",
    "server",
    "spawn_channel",
    "stats",
    "stop_on_signals",
    "testing",
    "transports",
]

# Imported on first use: most programs do not need them, and some of them import grpc.
_ELSEWHERE = {
    "AddressError": "localrpc.errors",
    "AddressInUse": "localrpc.errors",
    "Channel": "localrpc.sync.channel",
    "ChildChannel": "localrpc.sync.children",
    "ConnectionFacts": "localrpc.transports.base",
    "Counts": "localrpc.observe",
    "Endpoint": "localrpc.observe",
    "Latency": "localrpc.observe",
    "ListenError": "localrpc.errors",
    "Offer": "localrpc.transports.scheme",
    "PeerCredentials": "localrpc.transports.base",
    "Scope": "localrpc.transports.scheme",
}


def __getattr__(name: str) -> Any:
    if name in ("observe", "testing"):
        return import_module(f"localrpc.{name}")
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> _channel.Channel:
    """Return a channel to `target`, such as "shm:greeter" or "unix:/run/me/socket".

    The channel connects with its first call, and again after its connection is lost. It
    may be used by any number of threads, and in a forked child, where it makes a connection
    of its own. Close it with close(), or use it as a context manager.

    `options` are pairs of a name and a value, as grpc's; localrpc.options lists them.
    `compression` has no effect except at grpc: targets. `facts` of the channel says how the
    present connection travels. Only a channel to grpc:TARGET has none: it is grpcio's own, and
    typed like the others.

    Raises AddressError (a ValueError) if the target is malformed; ValueError, TypeError or
    OverflowError for a bad option; and RuntimeError if gevent or eventlet has replaced this
    process's threads. If nothing listens at the target, no exception is raised here: calls
    end with the status UNAVAILABLE, or wait for the server with wait_for_ready=True.
    """
    from localrpc.sync.channel import open_channel

    return cast("_channel.Channel", open_channel(target, options, compression))


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> _channel.Channel:
    """Return a channel like insecure_channel, with credentials.

    At grpc:TARGET `credentials` may be any of grpc's. At other targets only
    grpc.local_channel_credentials() is accepted: the kernel identifies the peer, without
    TLS.

    Raises ValueError for credentials that the target cannot honour, TypeError for None, and
    whatever insecure_channel raises.
    """
    from localrpc.sync.channel import open_secure_channel

    channel = open_secure_channel(target, credentials, options, compression)
    return cast("_channel.Channel", channel)


def server(
    thread_pool: futures.Executor,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] | None = None,
    options: Iterable[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
    xds: bool = False,
) -> grpc.Server:
    """Return a server whose handlers run on the threads of `thread_pool`.

    Add servicers and targets to it, then call its start(). It listens at any number of
    targets at once: add_insecure_port("shm:greeter") returns the port for tcp: and grpc:
    targets and 1 for the others, and raises RuntimeError if it cannot listen there.

    `handlers`, `interceptors` and `maximum_concurrent_rpcs` are as in grpc.server. `options`
    are pairs of a name and a value; localrpc.options lists them. `compression` and `xds`
    matter at grpc: targets only.

    The server works in any thread, and only in the process that created it: a forked child
    cannot use it. stop() ends it, and so does dropping the last reference to it. A server
    that was never stopped does not keep the interpreter from exiting.

    Raises ValueError, TypeError or OverflowError for a bad option, AttributeError for a
    handler that is not a grpc.GenericRpcHandler, and RuntimeError if gevent or eventlet has
    replaced this process's threads.
    """
    from localrpc.sync.server import Server

    return Server(
        thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression, xds=xds
    )


def spawn_channel(
    argv: Sequence[str],
    options: Sequence[tuple[str, Any]] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    target: str = "pipe:",
    stderr: str = "inherit",
    grace: float = 5.0,
) -> _children.ChildChannel:
    """Start a program whose server listens at "pipe:", and return a channel to it.

    `argv`, `env` and `cwd` are as in subprocess.Popen, `options` as in insecure_channel. The
    program has to call add_insecure_port("pipe:") on its server, whatever `target` is: "pipe:"
    for a pair of pipes between the two processes, "unix:" for a pair of sockets, or "shm:" for
    rings in shared memory. None of them has a name, so no other process can connect. Options of
    the target, as in "shm:?ring=4M", apply to both sides. A program may print: the connection
    is not on its standard streams.

    With `stderr="inherit"` the child has this process's standard error. With "tail" its own is a
    pipe, which a thread of this process copies to ours: the last 20 lines, 4 KiB at most, are
    then part of the error of a call for which the child has ended. What is in the pipe when this
    process ends is lost. A child that outlives this process writes to our standard error again,
    as soon as its localrpc server has noticed.

    The channel has the child's `pid` and wait(timeout), with a timeout in seconds. Its close()
    lets the child end by itself for `grace` seconds, then sends SIGTERM, after `grace` more
    seconds SIGKILL, and waits until it has ended. A server that listens at pipe: alone stops when
    its parent is gone. If the child ends during a call, the call's details name its exit status
    or signal. The channel may be used by any number of threads. In a forked child it cannot be
    used, and its close() does not end the process, which is the parent's child.

    Raises OSError if the program cannot be started: FileNotFoundError if it does not exist;
    AddressError for another `target`; ValueError or TypeError for other arguments that are
    invalid; and what insecure_channel raises for options and greenlets.
    """
    from localrpc.drive.children import manner
    from localrpc.sync.children import spawn_channel as spawn

    return spawn(argv, options, env, cwd, manner(target, grace, stderr))


def fork_channel(
    setup: Callable[[grpc.Server], object],
    *,
    thread_pool: Callable[[], futures.Executor] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    target: str = "pipe:",
    stderr: str = "inherit",
    grace: float = 5.0,
) -> _children.ChildChannel:
    """Fork, serve what `setup(server)` adds in the child, and return a channel to it.

    In the child, `setup` is called with a new server, which then listens at "pipe:" until
    the channel is closed or the parent is gone. `thread_pool`, called in the child, returns
    the server's pool; the default is a ThreadPoolExecutor. `options` are for both sides;
    `target`, `stderr` and `grace` (seconds) are as in spawn_channel.

    The child ignores SIGINT and ends without running the parent's exit handlers. As with
    every fork, locks that other threads hold at that moment stay locked in the child, so
    fork before you start threads. The channel is like that of spawn_channel.

    Raises OSError if the process cannot fork, and what spawn_channel raises for other arguments.
    """
    from localrpc.drive.children import manner
    from localrpc.sync.children import fork_channel as fork

    return fork(setup, thread_pool, options, manner(target, grace, stderr))


def instrument(
    *,
    channel: Callable[[grpc.Channel], grpc.Channel] | None = None,
    server: Callable[[], grpc.ServerInterceptor] | None = None,
) -> Callable[[], None]:
    """Wrap all channels and servers that are created from now on; return a function to undo it.

    For tracing libraries; localrpc.integrations uses it for OpenTelemetry and Sentry.
    `channel` receives an object that makes a channel's calls and returns one to use in its
    place, as grpc.intercept_channel does; the channel keeps its class. `server` returns an
    interceptor, which comes before the server's own. The wrapper that was added last is the
    outermost. Calls at grpc: targets are grpcio's, and are not wrapped.

    Calling the returned function more than once has no further effect. Thread-safe.
    """
    from localrpc.sync.channel import instruments

    return instruments.add(channel, server)


def patch_grpc() -> Callable[[], None]:
    """Make grpc.insecure_channel and grpc.secure_channel accept localrpc's targets too.

    For libraries that create their own channels, such as grpc.experimental.unary_unary.
    Targets that mean something to grpcio stay grpcio's: names, host:port, unix: and
    unix-abstract:. Call it after tracing libraries have patched grpc, and before other threads
    create channels: it changes the module grpc for the whole process.

    Returns a function to undo it. A second call has no further effect.
    """
    from localrpc.sync.patching import patching

    return patching.patch()


def peer_credentials(
    context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any],
) -> _base.PeerCredentials:
    """Return the pid, uid, gid and groups of the client of a call, as the kernel reports them.

    `context` is what a handler of either API receives. What the kernel does not tell is 0 for
    the pid and -1 for the uid and gid: all three at grpc: targets, the pid of a process in a
    foreign PID namespace, and over tcp: the pid and gid of another user's process. The groups,
    those beside the gid, are known over Unix sockets (shm: included) and at inproc:; elsewhere,
    and for a process with more than 256, they are empty.

    Raises TypeError if `context` is not the context of a call.
    """
    from localrpc.drive.served import credentials_of

    return credentials_of(context)


def sd_notify(state: str) -> bool:
    """Send `state`, such as "STATUS=loading", to the service manager, as sd_notify(3) does.

    Returns True if the manager has got it, and False if there is none (NOTIFY_SOCKET is not
    set) or sending failed, which is logged. Never raises. May block for up to 2 seconds. A
    server with an fd: port sends READY=1 and STOPPING=1 by itself.
    """
    from localrpc.drive.notify import notify

    return notify(state)


def serve(
    app: str,
    *targets: str,
    workers: int = 1,
    threads: int = 10,
    grace: float = 30.0,
    boot_timeout: float = 60.0,
    options: Sequence[tuple[str, Any]] = (),
    uds_mode: int | None = None,
    uds_group: str | int | None = None,
    app_dir: str = ".",
    health: bool = True,
    reflection: bool = True,
    max_memory: int = 0,
    max_requests: int = 0,
    watchdog: float = 0.0,
    preload: bool = False,
    reload: bool = False,
    log_level: str = "info",
    log_json: bool = False,
) -> int:
    """Serve `app` at `targets` with worker processes, as the command `localrpc serve` does.

    `app` is "MODULE:NAME" of a servicer, its class, or a function that is given the server. This
    process starts the workers and replaces them, and returns the command's exit code when a
    signal has ended them all: localrpc/workers/README.md lists the signals and codes. Settings
    are the arguments alone: it reads no pyproject.toml and none of the command's environment
    variables.

    `workers` is the number of processes, `threads` that of each one's threads for synchronous
    handlers. `grace` and `boot_timeout` are in seconds, `max_memory` is in bytes of a worker's
    own (0: no limit). After `max_requests` calls, or up to a tenth more, a worker is replaced
    (0: never). One that for `watchdog` seconds (0: any time) runs no Python code, or not its
    event loop, writes where its threads are to stderr, is killed, and replaced. `options` are
    those of the workers' servers. `uds_group`, a name or number, is the group of the sockets'
    files, which the servers allow; `uds_mode` is the mode of these files, such as 0o660, the
    default with a group. `app_dir` is where modules are looked up first. `health` and
    `reflection` add these two services, if their packages are installed. With `preload` one
    process imports `app`, and the workers are forked from it: they share its memory and start
    fast, without the threads that importing has started. With `reload` the workers are replaced
    when a .py file there changes. `log_level` and `log_json` are for the
    workers; this process logs as its program has set up, to "localrpc.serve".

    For the main thread, as it handles signals; ValueError on others, and for settings that
    contradict each other. Raises ListenError for a target that cannot be served, and
    AddressInUse if another server has it; AddressError for a malformed one; TypeError for an
    option that cannot be sent to another process; and ModuleNotFoundError if `reload` is set
    without watchfiles.
    """
    from localrpc.workers.settings import Settings
    from localrpc.workers.supervisor import Supervisor

    settings = Settings(
        app,
        targets,
        workers,
        threads,
        grace,
        boot_timeout,
        options=tuple(options),
        uds_mode=uds_mode,
        uds_group=uds_group,
        app_dir=app_dir,
        health=health,
        reflection=reflection,
        max_memory=max_memory,
        max_requests=max_requests,
        watchdog=watchdog,
        preload=preload,
        reload=reload,
        log_level=log_level,
        log_json=log_json,
    )
    return Supervisor(settings).run()


def stats() -> tuple[_observe.Endpoint, ...]:
    """Return what this process's servers and channels have counted, one item for each target.

    All channels to one target are one Endpoint of the `role` "channel", whose `target` is as the
    channels have it; a server is one of the role "server", whose `target` has all of its targets,
    with spaces between them. Those that have ended are there with what they counted: `live` is
    False then. A server counts from its start on, and a channel from its first connection on: a
    call for which there is none is not counted. grpcio's calls, at grpc:TARGET, are not counted.

    `counts` has connections, calls in progress, and ended calls by status code; its `latency` has
    percentile(99), in seconds. Two readings of an endpoint have the calls between them:
    `now.counts.since(before.counts)`. localrpc.integrations publishes these numbers for Prometheus
    and OpenTelemetry.

    Any thread may call it. A forked child counts from 0, and not what its parent does. A process
    has room for 1023 connections and servers at a time: what exceeds that is not counted, and a
    new one takes the place, and with that the counts, of one that has ended. Never raises.
    """
    page = _observe.own()
    return _observe.total(page.endpoints) if page else ()


def stop_on_signals(server: grpc.Server, grace: float | None = None) -> None:
    """Make SIGTERM and SIGINT stop `server`: with `grace` at first, at once the second time.

    `grace` is in seconds, as in server.stop(); None means no grace. The process goes on after
    wait_for_termination(). A third signal has the action that it had before this call.

    Raises ValueError outside the main thread, as signal.signal does.
    """
    from localrpc.sync.signals import stop_on_signals as install

    install(server, grace)


def transports() -> tuple[_scheme.Offer, ...]:
    """Return every kind of target, with its properties and limits as they are now.

    Each item says how the target is written (`target`), between which processes it works
    (`scope`), how calls travel (`technique`, `direction`, `zero_copy`), what each side learns
    of the other (`credentials`), and the system's `limits` (-1: none). If `available` is
    False, `missing` says why and what to do. `served` are this user's targets in the runtime
    directory at which servers listen.
    """
    from localrpc.transports import offers

    return offers()
