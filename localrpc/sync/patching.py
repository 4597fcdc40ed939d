"""Patches grpc.insecure_channel and grpc.secure_channel."""

from __future__ import annotations

import grpc

from localrpc.drive.patching import Patching
from localrpc.sync.channel import open_channel, open_secure_channel

patching = Patching(grpc, open_channel, open_secure_channel)
