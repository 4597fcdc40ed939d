"""`localrpc call`, `list`, `describe` and `health`: calls to any service from a shell."""
