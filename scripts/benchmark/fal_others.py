"""What to compare a round with: a loop over clients as public federated code is written, one as lean as it can be by
hand, and stacks of clients by plain `torch.func`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.weights import Weights
from fal.adversary.config import AttackConfig
from fal.client import Work

CHUNK = 10
"""Clients of a stack, whatever the plan says."""


class Loops:
    """A network in one piece whose weights each client overwrites in turn; the global ones are `start`."""

    def __init__(self, network: nn.Module, start: Weights, images: tuple[Tensor, Tensor], attack: AttackConfig) -> None:
        self.network, self.start, self.images, self.attack = network.requires_grad_(), start, images, attack
        self.own: list[Tensor] = list(network.parameters())

    def usual(self, works: Sequence[Work], rate: float) -> Weights:
        """`loss.backward()` in the attack, which pays for the gradient of the weights in every step."""
        network, total = self.network, {name: torch.zeros_like(w) for name, w in self.network.state_dict().items()}
        for work in works:
            network.load_state_dict(self.start)
            optimiser = torch.optim.SGD(network.parameters(), rate)
            for step, batch in enumerate(work.batches):
                x, y = self.images[0][batch], self.images[1][batch]
                network.eval()
                points = self._started(x, work, step)
                for _ in range(self.attack.steps):
                    points = points.detach().requires_grad_()
                    F.cross_entropy(network(points), y).backward()
                    assert points.grad is not None
                    points = self._moved(points.detach(), points.grad, x)
                network.train()
                optimiser.zero_grad()
                F.cross_entropy(network(points), y).backward()
                optimiser.step()
            for name, w in network.state_dict().items():
                total[name] = total[name] + w / len(works)
        return total

    def lean(self, works: Sequence[Work], rate: float) -> Weights:
        """The gradient of the points alone in the attack, and every write in place."""
        network, own = self.network, self.own
        held = network.state_dict()
        total = {name: torch.zeros_like(w) for name, w in held.items()}
        for work in works:
            with torch.no_grad():
                for name, w in held.items():
                    w.copy_(self.start[name])
            for step, batch in enumerate(work.batches):
                x, y = self.images[0][batch], self.images[1][batch]
                low, high = (x - self.attack.eps).clamp_(0, 1), (x + self.attack.eps).clamp_(0, 1)
                for w in own:
                    w.requires_grad_(False)
                network.eval()
                points = self._started(x, work, step)
                for _ in range(self.attack.steps):
                    points.requires_grad_()
                    (gradient,) = torch.autograd.grad(F.cross_entropy(network(points), y), points)
                    points = points.detach().add_(gradient.sign_(), alpha=self.attack.length).clamp_(low, high)
                for w in own:
                    w.requires_grad_()
                network.train()
                gradients = torch.autograd.grad(F.cross_entropy(network(points), y), own)
                with torch.no_grad():
                    torch._foreach_add_(own, list(gradients), alpha=-rate)
            with torch.no_grad():
                for name, w in held.items():
                    if w.is_floating_point():
                        total[name].add_(w, alpha=1 / len(works))
        return total

    def vmap(self, works: Sequence[Work], rate: float) -> Weights:
        """Ten clients at once, the network under `torch.func.vmap` at every call, as lean as the lean loop."""
        total = {name: torch.zeros_like(w) for name, w in self.start.items()}
        for at in range(0, len(works), CHUNK):
            few = works[at : at + CHUNK]
            held = {name: w.expand(len(few), *w.shape).clone() for name, w in self.start.items()}
            own = [held[name] for name, _ in self.network.named_parameters()]
            for step in range(len(few[0].batches)):
                index = torch.stack([work.batches[step] for work in few])
                x, y = self.images[0][index], self.images[1][index]
                low, high = (x - self.attack.eps).clamp_(0, 1), (x + self.attack.eps).clamp_(0, 1)
                draw = [work.key.uniform(step, "start 0", tuple(x.shape[1:]), x.dtype) for work in few]
                points = torch.stack(draw).mul_(2).sub_(1).mul_(self.attack.eps).add_(x).clamp_(low, high)
                self.network.eval()
                for _ in range(self.attack.steps):
                    points.requires_grad_()
                    (gradient,) = torch.autograd.grad(self._summed(held, points, y), points)
                    points = points.detach().add_(gradient.sign_(), alpha=self.attack.length).clamp_(low, high)
                self.network.train()
                for w in own:
                    w.requires_grad_()
                gradients = torch.autograd.grad(self._summed(held, points, y), own)
                for w in own:
                    w.requires_grad_(False)
                torch._foreach_add_(own, list(gradients), alpha=-rate)
            for name, w in held.items():
                if w.is_floating_point():
                    total[name].add_(w.sum(0), alpha=1 / len(works))
        return total

    def _summed(self, held: Weights, points: Tensor, y: Tensor) -> Tensor:
        """The clients' mean losses, added up."""
        logits = torch.func.vmap(lambda own, x: torch.func.functional_call(self.network, own, (x,)))(held, points)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]

    def _started(self, x: Tensor, work: Work, step: int) -> Tensor:
        draw = work.key.uniform(step, "start 0", tuple(x.shape), x.dtype)
        return (x + self.attack.eps * (2 * draw - 1)).clamp(x - self.attack.eps, x + self.attack.eps).clamp(0, 1)

    def _moved(self, points: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        eps = self.attack.eps
        return (points + self.attack.length * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
