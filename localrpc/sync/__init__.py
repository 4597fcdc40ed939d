"""gRPC's synchronous API: channel, server, calls and contexts."""
