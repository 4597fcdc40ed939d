"""Adapters for other libraries, none of which localrpc needs: each module imports its own."""
