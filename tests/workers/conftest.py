from tests.workers.served import folder

__all__ = ["folder"]
