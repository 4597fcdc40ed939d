"""The wire's frames, control messages and greeting: bytes in, bytes and events out.

Nothing here has a descriptor, clock, thread or event loop. proto/PROTOCOL.md is
the text that this package follows.
"""
