"""What a run of the federation must not lose: the server's weights, and what clients keep from round to round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from common.engine.weights import Weights
from common.errors import UserError
from common.run.checkpoint import Shards
from fal import server
from fal.client import Global, Update
from fal.network import Network
from fal.settings import STATEFUL, OptimiserConfig


@dataclass
class ServerState:
    """All that a round changes; `run.track` keeps it."""

    weights: Weights
    buffers: Weights
    variate: Weights = field(default_factory=dict)
    """SCAFFOLD's c, FedDyn's h."""
    rejected: int = 0
    """Updates left out so far."""

    @property
    def state(self) -> tuple[Weights, Weights]:
        """What predicts: weights and buffers. Rounds put new tensors in their place."""
        return self.weights, self.buffers

    def fault(self, update: Update, start: Global, length: float) -> str:
        """Why an update of a client that began with `start` cannot be used, in words; empty: it can.

        `length`: of its change of weights.
        """
        if reason := server.fault(update.delta, start.weights, length):
            return reason
        parts = (update.buffers, start.buffers), (update.variate, self.variate)
        return next(filter(None, (server.fault(part, like) for part, like in parts if part or like)), "")

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "weights": self.weights, "buffers": self.buffers, "variate": self.variate, "rejected": self.rejected
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.weights, self.buffers = dict(state["weights"]), dict(state["buffers"])
        self.variate, self.rejected = dict(state["variate"]), int(state["rejected"])


class ClientStates:
    """Variates of SCAFFOLD's or FedDyn's clients, each a file of its own in a checkpoint; none for other optimisers."""

    def __init__(self, variates: dict[int, Weights]) -> None:
        """`variates`: of every client."""
        self.variates = variates

    def state_dict(self) -> Shards:
        """One shard a client."""
        return Shards(map(str, self.variates), lambda name: self.variates[int(name)])

    def load_state_dict(self, state: Mapping[str, Weights]) -> None:
        """Take them back.

        Raises:
            UserError: they are of another number of clients.
        """
        if {int(name) for name in state} != self.variates.keys():
            raise UserError(
                f"partition.clients={len(self.variates)}: the checkpoint has variates of {len(state)} clients; a run "
                "of SCAFFOLD or FedDyn is continued with the clients it began with"
            )
        self.variates = {int(name): dict(weights) for name, weights in state.items()}


def fresh_states(
    network: Network, optimiser: OptimiserConfig, clients: Sequence[int], dtype: torch.dtype, device: torch.device
) -> tuple[ServerState, ClientStates]:
    """Before the first round: the network's own weights, and variates of the `clients` at 0 where there are any."""
    weights, buffers = network.start()
    weights = {name: w.to(device, dtype) for name, w in weights.items()}
    buffers = {name: b.to(device, dtype) if b.is_floating_point() else b.to(device) for name, b in buffers.items()}
    if optimiser.name not in STATEFUL:
        return ServerState(weights, buffers), ClientStates({})
    zero = {name: torch.zeros_like(w) for name, w in weights.items()}
    return ServerState(weights, buffers, zero), ClientStates({client: zero for client in clients})


class Recent:
    """The global weights of the last few rounds, each a file of its own in a checkpoint."""

    def __init__(self, count: int) -> None:
        """`count`: how many."""
        self.count = count
        self._of: dict[int, tuple[Weights, Weights]] = {}

    def add(self, number: int, server: ServerState) -> None:
        """Those after round `number`."""
        self._of[number] = server.state
        for old in [each for each in self._of if each <= number - self.count]:
            del self._of[old]

    @property
    def states(self) -> list[tuple[Weights, Weights]]:
        """Weights and buffers, the oldest round first."""
        return [self._of[number] for number in sorted(self._of)]

    def state_dict(self) -> Shards:
        """One shard a round."""

        def shard(name: str) -> dict[str, Weights]:
            weights, buffers = self._of[int(name)]
            return {"weights": weights, "buffers": buffers}

        return Shards(map(str, sorted(self._of)), shard)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._of = {int(number): (dict(each["weights"]), dict(each["buffers"])) for number, each in state.items()}
