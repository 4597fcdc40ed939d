"""One target served by several worker processes, which a supervisor starts, replaces and ends."""
