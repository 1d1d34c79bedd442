"""How often Python looks for garbage."""

import gc


def rarely() -> None:
    """For commands that make many objects and then end: a hundred times less often."""
    gc.freeze()
    gc.set_threshold(70_000, 20, 50)
