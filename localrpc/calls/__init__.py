"""What a call is: the states of both sides, status texts, handlers, sizes, further attempts.

No function here uses a lock, thread, event loop, clock or the core, so that any API can drive it.
"""
