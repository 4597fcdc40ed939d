"""Passes calls on from one target to another: between gRPC's network and local servers."""
