"""The benchmark behind `localrpc bench`.

A peer is one way to make calls, a scenario one thing to measure. Every peer's
server and client are processes of their own, all alive through the whole run;
the runner gives each scenario to one peer after the other, round after round,
so that whatever happens to the machine happens to all of them.
"""
