"""`localrpc call`, `list`, `describe` and `health`: any service, called by hand."""
