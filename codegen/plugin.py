"""`protoc-gen-localrpc`: the generator as a plugin of protoc, grpc_tools.protoc or buf.

protoc sends a CodeGeneratorRequest on standard input and reads a CodeGeneratorResponse from
standard output: https://protobuf.dev/reference/other/.
"""

from __future__ import annotations

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from .generate import Settings, generate
from .layout import Imports
from .verify import NotPythonError, verify

USAGE = """\
usage: protoc -I protos --python_out=OUT \\
       --localrpc_out=[OPTION,...:]OUT protos/greeter.proto

Writes OUT/greeter_localrpc.py beside protoc's
greeter_pb2.py: for `service Greeter` the classes
GreeterStub, GreeterAsyncStub, GreeterServicer and
GreeterAsyncServicer, the function
add_GreeterServicer_to_server, and the names of the service
and its methods as constants.

protoc finds this program on PATH; buf does with
`local: protoc-gen-localrpc` in buf.gen.yaml.

options:
  imports=absolute  import other modules as protoc's own
                    output does (the default)
  imports=relative  import them relative to OUT, which is a
                    package
  python=3.13       the oldest Python version that runs the
                    output (default: 3.10)

`localrpc generate` runs protoc itself, and adapts
greeter_pb2.py and its type stub. Coming from grpcio-tools,
whose channels and servers also work with the new classes:

  before  python -m grpc_tools.protoc -I protos \\
              --python_out=app --grpc_python_out=app \\
              greeter.proto
          import greeter_pb2_grpc  # app is on sys.path
          stub = greeter_pb2_grpc.GreeterStub(channel)

  after   localrpc generate protos/greeter.proto --out app
          from app.greeter_localrpc import GreeterStub
          stub = GreeterStub(channel)  # every call is typed
"""

# EDITION_2024; older descriptor modules do not have the name.
NEWEST_EDITION = 1001
OLDEST_EDITION = 998


class OptionError(ValueError):
    """An unknown option of the plugin."""


def parse_options(parameter: str) -> Settings:
    """Return settings from protoc's comma-separated `name=value` list."""
    imports, python = Imports.ABSOLUTE, (3, 10)
    for option in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = option.partition("=")
        try:
            if name == "imports":
                imports = Imports(value)
                continue
            if name == "python":
                python = parse_python(value)
                continue
        except ValueError:
            pass
        raise OptionError(
            f"unknown option {option!r}: known are imports=absolute, imports=relative, python=3.N"
        )
    return Settings(imports=imports, python=python)


def parse_python(text: str) -> tuple[int, int]:
    """Return `3.13` as `(3, 13)`. Raises ValueError for other texts."""
    major, minor = text.split(".")
    if int(major) != 3:
        raise ValueError(text)
    return int(major), int(minor)


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the plugin's answer; a mistake of the caller is in `error`, which protoc prints."""
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=OLDEST_EDITION,
        maximum_edition=NEWEST_EDITION,
    )
    try:
        settings = parse_options(request.parameter)
    except OptionError as error:
        response.error = str(error)
        return response
    modules = generate(request.proto_file, request.file_to_generate, settings)
    try:
        for name, text in modules.items():
            verify(text, name, ", ".join(request.file_to_generate))
    except NotPythonError as error:
        response.error = str(error)
        return response
    for name, text in modules.items():
        response.file.add(name=name, content=text)
    return response


def main() -> None:
    """Run the program: a request on standard input, a response on standard output."""
    if len(sys.argv) > 1 or sys.stdin.isatty():
        print(USAGE, end="")
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


if __name__ == "__main__":
    main()
