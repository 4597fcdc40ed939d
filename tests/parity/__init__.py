"""What user code sees, told twice: once by grpcio, once by localrpc."""
