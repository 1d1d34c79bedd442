"""PERK: Long-Context Reasoning as Parameter-Efficient Test-Time Learning (ICLR 2026).

import perk

reader = perk.load("runs/perk/babilong_qa1/scale-cpu")   # a trained run
memory = reader.read(text)                               # once
memory.ask("Where is Mary?")                             # as often as wanted
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perk.memory import Memory, Reader, load, read

__all__ = ["Memory", "Reader", "load", "read"]


def __getattr__(name: str) -> Any:
    """The reader's names, at their first use: commands import this package too, and need no torch to start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perk import memory

    return getattr(memory, name)
