"""The benchmark behind `localrpc bench`.

A peer is one way to make calls, a scenario one thing to measure. Each peer has a server process
and a client process, which live as long as the run; the runner gives each scenario to one peer
after the other, round after round, so that every disturbance of the machine affects all of them.
"""
