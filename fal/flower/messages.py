"""What goes over the wire, as Flower's records: weights bit for bit, numbers in float64.

to a node      round, clients, global weights, buffers and variate, and the variates of its clients
from a node    of every client its update; or why the node refuses to work
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import safetensors.torch
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.engine.weights import Weights
from common.errors import UserError
from fal.client import Global, Update

log = logging.getLogger(__name__)
TENSORS = ("delta", "buffers", "variate")
NUMBERS = tuple(field.name for field in fields(Update) if field.name not in TENSORS)
ORDER, REFUSAL, CARD = "order", "refusal", "card"


@dataclass(frozen=True)
class Order:
    """What a node is to do."""

    round: int
    clients: list[int]
    start: Global
    variates: Mapping[int, Weights]
    """SCAFFOLD's c_i of those clients that have one."""

    def record(self) -> RecordDict:
        """For a message."""
        found = RecordDict({ORDER: ConfigRecord({"round": self.round, "clients": self.clients})})
        parts = {"weights": self.start.weights, "buffers": self.start.buffers, "variate": self.start.variate}
        for name, weights in {**parts, **{f"{c}.variate": w for c, w in self.variates.items()}}.items():
            _put(found, name, weights)
        return found

    @classmethod
    def of(cls, record: RecordDict, device: torch.device) -> "Order":
        """What a message orders, with its tensors on `device`."""
        said = record.config_records[ORDER]
        clients = [int(client) for client in said["clients"]]
        variates = {client: _get(record, f"{client}.variate", device) for client in clients}
        weights, buffers, variate = (_get(record, name, device) for name in ("weights", "buffers", "variate"))
        start = Global(weights, buffers, variate)
        return cls(int(said["round"]), clients, start, {c: w for c, w in variates.items() if w})


@dataclass(frozen=True)
class Card:
    """Who a node is: what must be the same on both sides, and its clients."""

    settings: str
    """Hash of the configuration."""
    code: str
    """Version and revision."""
    clients: list[int]

    def record(self) -> RecordDict:
        """For a message."""
        return RecordDict({CARD: ConfigRecord(dict(vars(self)))})

    @classmethod
    def of(cls, record: RecordDict) -> "Card":
        """What a message says."""
        said = record.config_records[CARD]
        return cls(str(said["settings"]), str(said["code"]), [int(c) for c in said["clients"]])

    def check(self, other: "Card", node: str) -> None:
        """Compare a node's card with the server's.

        Raises:
            UserError: the node works by other settings or other code.
        """
        for key, what in (("settings", "another configuration"), ("code", "another version of the code")):
            if (own := getattr(self, key)) != (its := getattr(other, key)):
                raise UserError(
                    f"{node} has {what} ({its}) than the server ({own}): its updates would be of another run; give it "
                    "the server's and start it again, then the same command continues"
                )


def refusal(error: UserError) -> RecordDict:
    """A node's answer when it cannot work."""
    return RecordDict({REFUSAL: ConfigRecord({"why": str(error)})})


def refused(record: RecordDict) -> str | None:
    """Why a node does not work, None if it does."""
    said = record.config_records.get(REFUSAL)
    return None if said is None else str(said["why"])


def of_updates(updates: Iterable[tuple[int, Update]]) -> RecordDict:
    """A node's answer."""
    found = RecordDict()
    for client, update in updates:
        for name in TENSORS:
            _put(found, f"{client}.{name}", getattr(update, name))
        found[f"{client}.numbers"] = MetricRecord({name: getattr(update, name) for name in NUMBERS})
    return found


def updates_in(record: RecordDict, clients: Iterable[int], device: torch.device) -> dict[int, Update]:
    """The updates of those `clients` that the answer has, on `device`."""
    found = {}
    for client in clients:
        numbers = record.metric_records.get(f"{client}.numbers")
        if numbers is None or not {*NUMBERS} <= numbers.keys():
            continue
        parts: dict[str, Any] = {name: _get(record, f"{client}.{name}", device) for name in TENSORS}
        found[client] = Update(**parts, **{name: numbers[name] for name in NUMBERS})
    return found


def _put(record: RecordDict, name: str, weights: Weights) -> None:
    """All tensors as one array of bytes: Flower sends every array on its own. The numbers keep their order."""
    if weights:
        numbered = {f"{place:06d} {key}": w for place, (key, w) in enumerate(weights.items())}
        data = safetensors.torch.save({key: w.detach().cpu().contiguous() for key, w in numbered.items()})
        record[name] = ArrayRecord([np.frombuffer(data, np.uint8)])


def _get(record: RecordDict, name: str, device: torch.device) -> Weights:
    found = record.array_records.get(name)
    if found is None:
        return {}
    (data,) = found.to_numpy_ndarrays()
    return {key[7:]: w.to(device) for key, w in sorted(safetensors.torch.load(data.tobytes()).items())}
