"""Byzantine clients: what they make of their work and of their updates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from common.engine.weights import Weights, stack_of
from common.errors import UserError
from fal import server
from fal.client import Update, Work
from fal.keys import Key
from fal.trust import ByzantineConfig, Fraud


@dataclass(frozen=True)
class Byzantine:
    """The clients of a run that do not do as they are told; the same ones in every round."""

    config: ByzantineConfig
    seed: int
    clients: frozenset[int]
    flipped: Tensor | None = None
    """Labels of all items as label flippers have them."""

    @classmethod
    def of(cls, config: ByzantineConfig, seed: int, clients: int, y: Tensor, classes: int) -> "Byzantine":
        """Chosen among so many clients by the seed.

        Raises:
            UserError: nobody honest is left.
        """
        if config.clients >= clients:
            raise UserError(f"byzantine.clients={config.clients} of {clients}: none is honest; use less than {clients}")
        chosen = Key(seed, 0, "server").permutation(0, "byzantine", clients)[: config.clients]
        flipped = classes - 1 - y if config.name is Fraud.label_flip else None
        return cls(config, seed, frozenset(chosen.tolist()), flipped)

    def disguised(self, client: int, work: Work) -> Work:
        """The work that a client really does."""
        return replace(work, y=self.flipped) if client in self.clients and self.flipped is not None else work

    def tampered(self, found: Mapping[int, Update], number: int) -> dict[int, Update]:
        """The updates of round `number` as the server gets them."""
        honest = [update.delta for client, update in found.items() if client not in self.clients]
        sent = dict(found)
        for client in sorted(self.clients & found.keys()):
            update = found[client]
            loss = update.adversarial_loss if self.config.claim is None else self.config.claim
            delta = self._delta(update.delta, honest, len(found), Key(self.seed, number, client))
            sent[client] = replace(update, delta=delta, adversarial_loss=loss)
        return sent

    def _delta(self, own: Weights, honest: list[Weights], clients: int, key: Key) -> Weights:
        scale = self.config.scale
        if self.config.name is Fraud.sign_flip:
            return {name: -scale * w for name, w in own.items()}
        if self.config.name is Fraud.noise:
            draw = key.generator(0, "noise")
            noise = {name: torch.randn(w.shape, generator=draw, dtype=w.dtype).to(w) for name, w in own.items()}
            factor = scale * server.norm(own) / server.norm(noise)
            return {name: factor * w for name, w in noise.items()}
        if self.config.name is Fraud.alie and len(honest) > 1:
            z = deviations(clients, clients - len(honest))
            return {name: each.mean(0) - z * each.std(0) for name, each in stack_of(honest).items()}
        return own


def deviations(clients: int, byzantine: int) -> float:
    """ALIE's z: so far off that with the Byzantine clients a majority lies further off than they do."""
    supporters = clients // 2 + 1 - byzantine
    share = (clients - byzantine - supporters) / (clients - byzantine)
    return NormalDist().inv_cdf(min(max(share, 1e-6), 1 - 1e-6))
