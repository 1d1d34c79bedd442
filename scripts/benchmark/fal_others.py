"""Two loops over clients to compare with: as public federated code is written, and as lean as it can be by hand."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.weights import Weights
from fal.adversary.config import AttackConfig
from fal.client import Work


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

    def _started(self, x: Tensor, work: Work, step: int) -> Tensor:
        draw = work.key.uniform(step, "start 0", tuple(x.shape), x.dtype)
        return (x + self.attack.eps * (2 * draw - 1)).clamp(x - self.attack.eps, x + self.attack.eps).clamp(0, 1)

    def _moved(self, points: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        eps = self.attack.eps
        return (points + self.attack.length * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
