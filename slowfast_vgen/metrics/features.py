"""The world's own frozen encoders: trained once on the training split, kept by what they depend on, known by a hash.

`Encoders.place` gives SRC-world and LPIPS-world, `Encoders.motion` FVD-world, `Encoders.inverse` says whether a video
does what was asked. None of these numbers can be compared with published ones: the features are others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from common.errors import UserError
from common.run import tensorfile
from common.run.files import write_atomic
from common.run.results import DAMAGED
from slowfast_vgen.metrics import tasks
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.metrics.encoders import InverseDynamics, MotionEncoder, PlaceEncoder

if TYPE_CHECKING:
    from slowfast_vgen.worlds.episode import World

Array = NDArray[np.float64]
VERSION = 1
"""Of networks, tasks and training: encoders of another one are trained anew."""
RATE = 6e-3
HELD_OUT = 256
"""Clips of dev on which an encoder's tasks are scored."""
ROWS = 256
"""Clips that go through an encoder at once."""
log = logging.getLogger(__name__)
Loss = Callable[[Any, tasks.Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Encoders:
    """Three frozen networks of one world."""

    place: PlaceEncoder
    motion: MotionEncoder
    inverse: InverseDynamics
    digests: Mapping[str, str]
    """Network -> the first 12 digits of the SHA-256 of its weights."""
    right: Mapping[str, Mapping[str, float]]
    """Network -> task -> the share it gets right on dev."""

    def places(self, frames: ArrayLike) -> Array:
        """Features [n, 32] of frames [n, height, width, 3] (uint8, or floats from 0 to 1) for SRC-world."""
        return _through(self.place, frames)

    def motions(self, clips: ArrayLike) -> Array:
        """Features [n, 32] of clips [n, f, height, width, 3] for FVD-world."""
        return _through(self.motion, clips)

    def lpips(self, made: ArrayLike, truth: ArrayLike) -> Array:
        """LPIPS-world [n] of frames [n, height, width, 3]: over the levels of the place encoder, the mean squared
        difference of feature maps whose vector at every pixel has length 1."""
        found = []
        for start in range(0, len(np.asarray(made)), ROWS):
            pair = [self.place.maps(as_tensor(np.asarray(side)[start : start + ROWS])) for side in (made, truth)]
            levels = [
                (nn.functional.normalize(one, dim=1) - nn.functional.normalize(other, dim=1)).square().sum(1)
                for one, other in zip(*pair, strict=True)
            ]
            found.append(torch.stack([level.mean((1, 2)) for level in levels]).sum(0))
        return torch.cat(found).double().numpy()

    def actions(self, videos: ArrayLike, given: int) -> NDArray[np.int64]:
        """The likeliest action [n] of videos [n, given + f, height, width, 3], whose first `given` frames were there
        before: of the mean log-probability over their pairs of frames. Without `given` frames the first pair is
        missing."""
        frames = as_tensor(videos)
        start = max(given, 1)
        count = frames.shape[1] - start
        before, after = (frames[:, start - 1 + shift : start - 1 + shift + count].flatten(0, 1) for shift in (0, 1))
        logits = torch.cat(
            [self.inverse(*pair) for pair in zip(before.split(ROWS), after.split(ROWS), strict=True)]
        ).log_softmax(1)
        return logits.unflatten(0, (len(frames), count)).mean(1).argmax(1).numpy()


def encoders(world: World, identity: str, seed: int, config: FeaturesConfig) -> Encoders:
    """The encoders of a world, from the cache if they are there.

    Args:
        world: they are trained on its training split.
        identity: everything that the world's clips depend on, as text (its configuration).
        seed: of the world, and of the encoders' start.
        config: how long they are trained and where they are kept.

    Raises:
        UserError: the cache cannot be written.
    """
    sample = world.clips(seed, "train", 0, 1024, 2)
    size = {"height": world.height, "width": world.width}
    actions, looks = world.actions.count, max(1, int(sample.looks.max()) + 1)
    made: dict[str, tuple[Callable[[], nn.Module], Loss]] = {
        "place": (lambda: PlaceEncoder(**size), tasks.place_loss),
        "motion": (lambda: MotionEncoder(**size, actions=actions, looks=looks), tasks.motion_loss),
        "inverse": (lambda: InverseDynamics(**size, actions=actions), tasks.inverse_loss),
    }
    networks: dict[str, Any] = {}
    digests, right = {}, {}
    for name, (build, loss) in made.items():
        key = json.dumps([VERSION, name, identity, seed, config.steps, config.batch])
        file = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}{tensorfile.SUFFIX}"
        path = Path(config.cache) / file if config.cache else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build()
        scores = _kept(path, network)
        if scores is None:
            scores = _trained(network, loss, world, seed, config)
            _keep(path, network, scores)
        network.requires_grad_(False).eval()
        networks[name], right[name] = network, scores
        digests[name] = tensorfile.digest(network.state_dict())[:12]
        told = ", ".join(f"{task} {100 * share:.1f} %" for task, share in scores.items())
        log.info("%s encoder %s: right on dev: %s", name, digests[name], told)
    return Encoders(networks["place"], networks["motion"], networks["inverse"], digests, right)


def as_tensor(frames: ArrayLike) -> Tensor:
    """Frames as float32 from 0 to 1."""
    given = np.asarray(frames)
    found = torch.from_numpy(np.ascontiguousarray(given))
    return found.float() / 255 if given.dtype == np.uint8 else found.float()


def _trained(network: nn.Module, loss: Loss, world: World, seed: int, config: FeaturesConfig) -> dict[str, float]:
    """Train a network on clips of the training split; returns the share of each task it gets right on dev."""
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=config.steps)
    with torch.enable_grad():
        for step in range(config.steps):
            batch = tasks.batch_of(world, seed, "train", step * config.batch, config.batch)
            optimiser.zero_grad()
            loss(network, batch, draw)[0].backward()
            optimiser.step()
            schedule.step()
    held_out = tasks.batch_of(world, seed, "dev", 0, HELD_OUT)
    with torch.no_grad():
        _, right = loss(network, held_out, torch.Generator().manual_seed(seed))
    return {task: float(each.double().mean()) for task, each in right.items()}


def _kept(path: Path | None, network: nn.Module) -> dict[str, float] | None:
    """Load the weights kept in `path`; returns their scores, or None where there are none that can be used."""
    if path is None or not path.is_file():
        return None
    try:
        scores: dict[str, float] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tensors, _ = tensorfile.read(path, scores.pop("sha256"))  # type: ignore[arg-type]
        network.load_state_dict(tensors)
    except (OSError, UserError, RuntimeError, *DAMAGED) as error:
        log.warning("%s: damaged (%s); the encoder is trained again", path, error)
        return None
    return scores


def _keep(path: Path | None, network: nn.Module, scores: Mapping[str, float]) -> None:
    if path is None:
        return
    from safetensors.torch import save

    weights = save(network.state_dict())
    try:
        write_atomic(path, weights)
        said = {**scores, "sha256": hashlib.sha256(weights).hexdigest()}
        write_atomic(path.with_suffix(".json"), json.dumps(said, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"features.cache={path.parent}: {error.strerror or error}; free space there, or set another folder (null "
            "keeps nothing)"
        ) from error


@torch.no_grad()
def _through(network: nn.Module, frames: ArrayLike) -> Array:
    given = np.asarray(frames)
    parts = [network(as_tensor(given[start : start + ROWS])) for start in range(0, len(given), ROWS)]
    return torch.cat(parts).double().numpy()
