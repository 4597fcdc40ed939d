"""Who waits: blocking callers, server workers, and the few threads behind them."""
