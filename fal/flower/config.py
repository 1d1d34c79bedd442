"""Where the federation's clients run."""

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from common.errors import UserError


class Engine(StrEnum):
    """What carries out the clients' work; the numbers are the same."""

    inprocess = "inprocess"
    flower_simulation = "flower_simulation"
    """Flower's simulation on this machine, by Ray."""
    flower_deployment = "flower_deployment"
    """A SuperLink and SuperNodes, processes of their own with certificates and keys."""


@dataclass
class EngineConfig:
    """None of these keys changes a number. All but the name are Flower's."""

    name: Engine = Engine.inprocess
    nodes: int = 0
    """SuperNodes; node i has the clients i, i + nodes, ...; 0 is one a client."""
    nodes_here: bool = True
    """Start the nodes on this machine; false: the log says what starts each of them on its own."""
    host: str = "127.0.0.1"
    """The address that nodes know the SuperLink by."""
    port: int = 18443
    """The SuperLink's; its nodes on this machine have those that follow."""
    start_seconds: float = 300.0
    """For a process to start and be ready. The first start on a busy machine takes a minute."""
    round_seconds: float = 600.0
    """For the nodes' answers in one round; more than the start of a process takes, which every round may need."""
    poll_seconds: float = 0.5
    """Between two looks for answers."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: a value is out of range.
        """
        if self.nodes < 0 or not 1024 <= self.port <= 65000:
            raise UserError(
                f"engine.nodes={self.nodes}, engine.port={self.port}: use 0 nodes or more and a port from 1024 to 65000"
            )
        for key in ("start_seconds", "round_seconds", "poll_seconds"):
            if not getattr(self, key) > 0:
                raise UserError(f"engine.{key}={getattr(self, key):g}: use a number above 0")


def held_by(node: int, nodes: int, clients: int) -> list[int]:
    """The clients of one of `nodes` nodes."""
    return list(range(node, clients, nodes))


def need_flower(engine: EngineConfig) -> None:
    """Refuse an engine whose libraries are missing.

    Raises:
        UserError: Flower is not installed.
    """
    if engine.name is not Engine.inprocess and not find_spec("flwr"):
        raise UserError(
            f"engine={engine.name} needs Flower, which is not installed: run make setup-flower, or use engine=inprocess"
        )
