import re


def case_id(case: object) -> str:
    """A test's id that is the same in every process: without addresses."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(case))
