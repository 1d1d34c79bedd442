"""The federation: who takes part in a round, in which chunks clients train, and what the server makes of it."""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from common.engine.cuda.sizes import keep_freed
from common.engine.weights import Weights, averaged, stack_of
from common.errors import UserError
from fal import server
from fal.byzantine import Byzantine
from fal.client import Global, Remote, Update, Work, client_step, effective_steps
from fal.keys import Key
from fal.methods import Local
from fal.network import ATTACKED
from fal.settings import STATEFUL, ClientWeights, FederationConfig, MethodConfig, Optimiser, OptimiserConfig
from fal.states import ClientStates, ServerState
from fal.trust import Aggregator, AggregatorConfig
from fal.workload import Client, batches_of

log = logging.getLogger(__name__)
SERVER = "server"


@dataclass(frozen=True)
class Round:
    """What is logged of a round."""

    clients: int
    left_out: Mapping[int, str]
    """Client -> why its update was rejected."""
    metrics: Mapping[str, float]


@dataclass
class Collected:
    """What the server has of a round's updates."""

    updates: dict[int, Update] = field(default_factory=dict)
    """By client; without their weights where those are added up."""
    left_out: dict[int, str] = field(default_factory=dict)
    norms: dict[int, float] = field(default_factory=dict)
    changes: server.Sum = field(default_factory=server.Sum)
    buffers: server.Sum = field(default_factory=server.Sum)


@dataclass
class Federation:
    """Clients and server of a run."""

    local: Local
    images: tuple[Tensor, Tensor]
    clients: Sequence[Client]
    config: FederationConfig
    optimiser: OptimiserConfig
    aggregator: AggregatorConfig
    seed: int
    server: ServerState
    states: ClientStates
    byzantine: Byzantine | None = None
    remote: Remote | None = None
    """Who trains clients elsewhere; None: they are trained here."""

    def __post_init__(self) -> None:
        """Refuse what no round could do; a chunk's weights and gradients come where those of the one before were.

        Raises:
            UserError: participation chooses none, or too few for the aggregation rule.
        """
        keep_freed()
        if self.count < 1:
            raise UserError(
                f"federation.participation={self.config.participation:g} of {len(self.clients)} clients takes none; "
                f"use {1 / len(self.clients):g} or more"
            )
        server.check_rule(self.aggregator, self.count)
        if (self.aggregator.kept or 0) > self.count:
            raise UserError(f"aggregator.kept={self.aggregator.kept} of {self.count} updates: use {self.count} or less")

    @property
    def count(self) -> int:
        """Clients that a round chooses."""
        return round(self.config.participation * len(self.clients))

    @property
    def method(self) -> MethodConfig:
        """Of the local objective."""
        return self.local.method

    @cached_property
    def able(self) -> frozenset[int]:
        """Clients that can afford attacks, one at least; the same ones in every round."""
        share, count = self.method.able, len(self.clients)
        chosen = Key(self.seed, 0, SERVER).permutation(0, "able", count).tolist()
        return frozenset(chosen if share is None else chosen[: max(1, round(share * count))])

    def chosen(self, number: int) -> list[Client]:
        """The clients of a round, in the order of their numbers, without those that drop out."""
        key = Key(self.seed, number, SERVER)
        chosen = list(range(len(self.clients)))
        if self.count < len(self.clients):
            chosen = sorted(key.permutation(0, "chosen", len(self.clients))[: self.count].tolist())
        if self.config.dropouts:
            away = key.uniform(0, "dropouts", (len(self.clients),)) < self.config.dropouts
            chosen = [client for client in chosen if not away[client]]
        return [self.clients[client] for client in chosen]

    def work(self, client: Client, number: int) -> Work | None:
        """What a client does in a round; None: it is slow and gets no step done."""
        key = Key(self.seed, number, client.number)
        batches, last = batches_of(
            client.indices, self.config, key, number, replays=self.method.replays or 1, shares=client.shares
        )
        if not batches:
            return None
        variate = self.states.variates.get(client.number, {})
        work = Work(key, batches, client.log_counts, last, variate, attacks=client.number in self.able)
        return work if self.byzantine is None else self.byzantine.disguised(client.number, work)

    def optimiser_of(self, number: int) -> OptimiserConfig:
        """The local steps of a round: its learning rate."""
        start = self.optimiser.lr if self.method.eta_local is None else self.method.eta_local
        return replace(self.optimiser, lr=start * self.optimiser.decay ** (number - 1))

    def train(self, works: Mapping[int, Work], number: int) -> Iterable[tuple[int, Update]]:
        """The updates of the clients, one after the other in the order of groups of works that have one shape."""
        if self.remote is not None:
            yield from self.remote(self.start([*works]), works, number).items()
            return
        groups: dict[Hashable, list[int]] = {}
        for client, work in works.items():
            groups.setdefault(work.kind, []).append(client)
        optimiser = self.optimiser_of(number)
        for group in groups.values():
            size = self.chunk(works[group[0]], len(group))
            for at in range(0, len(group), size):
                few = group[at : at + size]
                own = [works[client] for client in few]
                found = client_step(self.local, optimiser, self.images, self.start(few), own)
                yield from zip(few, found, strict=True)

    def start(self, clients: Sequence[int]) -> Global:
        """What these clients begin a round with; FedDyn's server keeps its variate to itself."""
        variate = self.server.variate if self.optimiser.name is Optimiser.scaffold else {}
        return Global(*self.server.state, variate)

    def chunk(self, work: Work, clients: int) -> int:
        """How many clients with works of this shape go at once."""
        if not self.config.stack or clients == 1:
            return 1
        part, start = (self.images[0][work.batches[0]], self.images[1][work.batches[0]]), self.start([0])
        return self.local.network.chunk(start.weights, start.buffers, part, clients)

    def round(self, number: int) -> Round:
        """Train the clients of round `number`, move the server if enough updates come: by seed, number and state alone.

        Raises:
            UserError: more updates were rejected than `federation.max_rejected`.
        """
        works = {client.number: self.work(client, number) for client in self.chosen(number)}
        at_work = {client: work for client, work in works.items() if work is not None}
        found = self.collected(at_work, number)
        left_out = dict(sorted(found.left_out.items()))
        self.server.rejected += len(left_out)
        for client, reason in left_out.items():
            log.warning("round %d: the update of client %d %s; it is left out", number, client, reason)
        if self.server.rejected > self.config.max_rejected:
            last = max(left_out)
            raise UserError(
                f"{self.server.rejected} updates were rejected up to round {number}, the last of client {last} "
                f"({left_out[last]}): more than federation.max_rejected={self.config.max_rejected}; use a smaller "
                "optimiser.lr, or a larger limit"
            )
        if len(found.updates) < server.fewest(self.aggregator):
            log.warning("round %d: %d updates are too few; the global weights stay", number, len(found.updates))
            return Round(0, left_out, {})
        self.move(found, number)
        return Round(len(found.updates), left_out, self.measured(found))

    @property
    def streams(self) -> bool:
        """Can updates be added up as they come? Where the server looks at all of them, it keeps them."""
        return self.aggregator.name is Aggregator.mean and not self.method.slack and self.byzantine is None

    def collected(self, works: Mapping[int, Work], number: int) -> Collected:
        """Train the clients of a round and keep of their updates what the server needs."""
        found = Collected()
        updates = self.train(works, number)
        if self.byzantine is not None:
            updates = self.byzantine.tampered(dict(updates), number).items()
        for client, update in updates:
            length = server.norm(update.delta)
            if reason := self.server.fault(update, self.start([client]), length):
                found.left_out[client] = reason
                continue
            found.norms[client] = length
            if self.streams:
                size = self.size(client)
                found.changes.add(self.direction(update), size)
                found.buffers.add(update.buffers, size)
                update = replace(update, delta={}, buffers={})
            found.updates[client] = update
        clients = list(found.norms)
        if not (far := [clients[place] for place in server.too_long(list(found.norms.values()))]):
            return found
        long = {
            client: f"is {found.norms[client]:.2g} long, over {server.LONGEST:.0e} times the median" for client in far
        }
        if self.streams:  # a round is a function of its clients: once more, without those
            again = self.collected({client: work for client, work in works.items() if client not in far}, number)
            return replace(again, left_out=again.left_out | long)
        kept = {client: update for client, update in found.updates.items() if client not in far}
        return replace(found, updates=kept, left_out=found.left_out | long)

    def direction(self, update: Update) -> Weights:
        """An update as it is averaged: FedNova divides it by its effective number of steps."""
        if self.optimiser.name is not Optimiser.fednova:
            return update.delta
        count = effective_steps(update.steps, self.optimiser)
        return {name: w / count for name, w in update.delta.items()}

    def move(self, found: Collected, number: int) -> None:
        """The server's step: U <- U + eta_global * (sum of shares * updates)."""
        state, updates = self.server, list(found.updates.values())
        sizes = [self.size(client) for client in found.updates]
        plain, rate = [size / sum(sizes) for size in sizes], self.method.eta_global
        if self.optimiser.name is Optimiser.fednova:
            counts = [effective_steps(update.steps, self.optimiser) for update in updates]
            rate *= sum(share * count for share, count in zip(plain, counts, strict=True))
        if self.streams:
            change, buffers = found.changes.mean, found.buffers.mean
        else:
            losses, shares = [update.adversarial_loss for update in updates], server.same_for_all(plain)
            if self.method.slack and number > 1:  # SFAT's first round is a plain mean
                shares = server.slack_shares(losses, sizes, self.method, self.local.network.batch_norm)
            change = server.combined(self.aggregator, list(map(self.direction, updates)), shares, state.weights)
            buffers = averaged(stack_of([update.buffers for update in updates]), plain)
        state.weights = {name: w + rate * change[name].to(w) for name, w in state.weights.items()}
        if self.method.able is not None:
            able = sum(share for share, client in zip(plain, found.updates, strict=True) if client in self.able)
            buffers = server.propagated(state.buffers, buffers, able, ATTACKED)
        state.buffers = buffers
        if self.optimiser.name in STATEFUL:
            self.move_variates(found.updates)
        if self.optimiser.name is Optimiser.feddyn:
            mu = self.optimiser.mu or 1.0
            state.weights = {name: w - state.variate[name] / mu for name, w in state.weights.items()}

    def move_variates(self, found: Mapping[int, Update]) -> None:
        """SCAFFOLD's c, FedDyn's h: c <- c + (1 / N) sum over the round's clients of (c_i new - c_i), N all clients."""
        share = 1 / len(self.clients)
        for client, update in found.items():
            before = self.states.variates[client]
            self.server.variate = {
                name: c + share * (update.variate[name] - before[name]) for name, c in self.server.variate.items()
            }
            self.states.variates[client] = update.variate

    def size(self, client: int) -> float:
        """What a client counts before any favour."""
        uniform = self.config.weights is ClientWeights.uniform
        return 1.0 if uniform else float(len(self.clients[client].indices))

    def measured(self, found: Collected) -> dict[str, float]:
        """Means over the round's clients, the largest drift, and bytes both ways as the algorithm needs them."""
        updates = list(found.updates.values())
        size = sum(w.numel() * w.element_size() for w in (*self.server.weights.values(), *self.server.buffers.values()))
        each = 2 if self.optimiser.name is Optimiser.scaffold else 1  # FedDyn's variates stay where they are
        mean = 1 / len(updates)
        return {
            "loss_first": mean * sum(update.loss_first for update in updates),
            "loss_last": mean * sum(update.loss_last for update in updates),
            "drift": max(found.norms[client] for client in found.updates),
            "gradients": mean * sum(update.gradients for update in updates),
            "bytes": float(2 * each * size * len(updates)),
        }
