"""What user code sees, recorded twice: with grpcio and with localrpc."""
