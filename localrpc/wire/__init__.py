"""The wire's frames, control messages and handshake: bytes in, bytes and events out.

No function here uses a descriptor, clock, thread or event loop. This package implements
proto/PROTOCOL.md.
"""
