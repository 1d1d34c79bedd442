"""What the cases of the benchmark of fast learning run on: a denoiser with a memory, and episodes of random latents."""

from importlib.resources import files

import torch
from omegaconf import OmegaConf
from torch import Tensor

from common.engine.settings import RuleName, Unroll
from common.engine.weights import stack_of
from common.run.schema import to_typed
from scripts.benchmark.slowfast_groups import META, Case
from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction
from slowfast_vgen.diffusion.diffusion import diffusion_of
from slowfast_vgen.latents.grid import Grid
from slowfast_vgen.memory import Memory, TempLora
from slowfast_vgen.model import Numbered, build
from slowfast_vgen.networks.config import ModelConfig
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.sampler import sample
from slowfast_vgen.settings import FastConfig

CHUNK, GRID, RATE = 2, Grid(10, 1, 2), 0.01
"""Of the small rooms, whose patches become 10 values at 2 positions."""


def config_of(name: str) -> ModelConfig:
    """conf/slowfast_vgen/model/<name>.yaml."""
    file = files("conf.slowfast_vgen") / "model" / f"{name}.yaml"
    config = OmegaConf.structured(ModelConfig)
    config.merge_with(OmegaConf.create(file.read_text(encoding="utf-8")))
    return to_typed(config, ModelConfig)


class Bench:
    """A denoiser with a memory, and episodes of random latents."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        self.case, config = case, config_of("factored_tiny")
        self.network = build(config, GRID, Numbered(), 0)
        self.diffusion = diffusion_of(DiffusionConfig(Prediction.v, zero_snr=True), GRID.size)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():  # the start predicts 0, whose gradient is 0
            for weight in self.network.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=draw).to(weight))
        outer = case.work == META
        fast = FastConfig(draws=case.draws, lr=RATE, rank=8, eps=1e-10)
        if outer:
            fast = FastConfig(draws=case.draws, lr=RATE, rank=8, rule=RuleName.sgd, weights=["B"])
        self.lora = TempLora(self.network, self.diffusion, fast, config.kind, 0)
        self.lora.attach()
        self.network.to(case.device, dtype)
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(outer and name not in self.lora.names)
        shape = (case.episodes, case.chunks + 2, CHUNK, *GRID)
        self.z = torch.randn(shape, generator=draw).to(case.device, dtype)
        self.action = torch.ones(case.episodes, dtype=torch.long, device=case.device)
        self.ids = [f"bench/{place}" for place in range(case.episodes)]
        self.learners = [weight for weight in self.network.parameters() if weight.requires_grad]

    def sampled(self) -> Tensor:
        """A chunk of every episode."""
        past, noise = self.z[:, 0], self.z[:, 1]
        start = self.lora.start(self.ids)
        return sample(
            self.network, self.diffusion, past, self.action, noise, steps=self.case.steps, weights=start.weights
        )

    def written(self) -> Memory:
        """The memories after one chunk, as one stack."""
        return self.lora.write(self.lora.start(self.ids), self.z[:, 0], self.z[:, 1], self.action)

    def one_by_one(self) -> Memory:
        """The same, each alone."""
        found = [
            self.lora.write(self.lora.start([id]), self.z[row, :1], self.z[row, 1:2], self.action[:1])
            for id, row in zip(self.ids, range(len(self.ids)), strict=True)
        ]
        weights = [{name: value[0] for name, value in each.weights.items()} for each in found]
        return Memory(tuple(self.ids), stack_of(weights))

    def outer(self, unroll: Unroll) -> None:
        """Gradients of the loss of one more chunk under what was written, for all that learns."""
        theta = self.lora.start(self.ids)
        for chunk in range(self.case.chunks):
            theta = self.lora.write(theta, self.z[:, chunk], self.z[:, chunk + 1], self.action, unroll)
        clip, clean, t, noise = self.asked()
        denoising_loss(self.network, self.diffusion, clip, self.action, clean, t, noise, theta.weights).sum().backward()

    def asked(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clip, what of it is given, times and noise of the outer loss."""
        clip = torch.cat([self.z[:, -2], self.z[:, -1]], 1)
        clean = (torch.arange(2 * CHUNK, device=clip.device) < CHUNK).expand(len(clip), -1)
        return clip, clean, torch.linspace(0.2, 0.9, len(clip)).to(clip), clip.flip(0, 1)
