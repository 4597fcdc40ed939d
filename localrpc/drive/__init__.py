"""Drives calls and connections: blocking callers, server workers and background threads."""
