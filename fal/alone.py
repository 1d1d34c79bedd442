"""Clients that train each by itself: the lower of the two ends that a federation is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.engine.weights import unstack
from fal.client import Global
from fal.federation import Collected, Federation


@dataclass
class Alone(Federation):
    """Clients that exchange nothing. The server's weights and buffers are stacks, a model for each client."""

    @property
    def streams(self) -> bool:
        """Nothing is added up."""
        return False

    def start(self, clients: Sequence[int]) -> Global:
        """What these clients have come to by themselves."""
        weights, buffers = self.server.state
        if len(clients) == 1:
            return Global(unstack(weights, clients[0]), unstack(buffers, clients[0]))
        few = list(clients)
        return Global({name: w[few] for name, w in weights.items()}, {n: b[few] for n, b in buffers.items()}, each=True)

    def measured(self, found: Collected) -> dict[str, float]:
        """As in a federation; nothing is sent."""
        return super().measured(found) | {"bytes": 0.0}

    def move(self, found: Collected, number: int) -> None:
        """Every client goes on from where it has come to."""
        state = self.server
        state.weights, state.buffers = ({name: w.clone() for name, w in each.items()} for each in state.state)
        for client, update in found.updates.items():
            for name, moved in update.delta.items():
                state.weights[name][client] += moved
            for name, buffer in update.buffers.items():
                state.buffers[name][client] = buffer
