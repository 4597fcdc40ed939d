"""`localrpc ps` and `localrpc top`: the servers and channels of this machine's processes."""
