"""Servers and clients in processes of their own, to be killed, stopped and counted."""
