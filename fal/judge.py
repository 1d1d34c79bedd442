"""Images of a split under the attacks of an evaluation."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from common.engine.weights import Weights
from fal.adversary.config import AttackConfig, Kind, Loss, Start
from fal.adversary.robust import aa_lite, attacked, is_right, worst_of
from fal.config import EvaluationConfig
from fal.images.images import Images
from fal.keys import Key
from fal.network import Network
from fal.sanity import sanity
from fal.scoring import Judged, Right

log = logging.getLogger(__name__)
CHECKED = 200
"""Images of the checks of an evaluation."""
PGD_STEPS = 20
"""At least, unless others are asked for."""
ROBUST, NATURAL = "pgd", "natural"


def attacks_of(trained: AttackConfig, asked: EvaluationConfig) -> dict[str, AttackConfig]:
    """Metric -> attack: one step, PGD on the cross-entropy and on the margin."""
    eps = trained.eps if asked.eps is None else asked.eps
    steps = max(PGD_STEPS, trained.steps) if asked.steps is None else asked.steps
    pgd = AttackConfig(Kind.pgd, trained.norm, eps, steps, eps / 4, asked.restarts)
    fgsm = AttackConfig(Kind.fgsm, trained.norm, eps, 1, eps, start=Start.none)
    return {"fgsm": fgsm, ROBUST: pgd, "cw": replace(pgd, loss=Loss.cw)}


def judge(
    network: nn.Module, images: Images, trained: AttackConfig, asked: EvaluationConfig, metrics: Sequence[str],
    first: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Who is classified right, by metric, of the `first` images, of all with 0.

    Random numbers are a function of the batch's place: models are compared under the same starts.
    """
    named = attacks_of(trained, asked)
    lite = aa_lite(trained.norm, named[ROBUST].eps, classes=images.classes, blocks=images.x.ndim == 4)
    found: dict[str, list[Tensor]] = {metric: [] for metric in metrics}
    like = next(network.parameters())
    count = min(first, len(images)) if first else len(images)
    for place, at in enumerate(range(0, count, asked.batch)):
        x = images.x[at : min(at + asked.batch, count)].to(like)
        y = images.y[at : min(at + asked.batch, count)].to(like.device)

        def draws(restart: int, place: int = place, shape: tuple[int, ...] = tuple(x.shape)) -> Tensor:
            return Key(0, 0, "judge").uniform(place, f"start {restart}", shape).to(like)

        for metric in metrics:
            points = x
            if metric in named:
                points = attacked(network, x, y, named[metric], draws, bounded=images.bounded)
            elif metric == "aa_lite":
                points = worst_of(network, x, y, lite, draws, bounded=images.bounded)
            found[metric].append(is_right(network, points, y).int().cpu())
    return {metric: torch.cat(parts) for metric, parts in found.items()}


def judge_each(
    models: Sequence[nn.Module], images: Images, trained: AttackConfig, asked: EvaluationConfig,
    metrics: Sequence[str], first: int = 0,
) -> Right:  # fmt: skip
    """The same of several models, [models, items], under the same starts."""
    found = [judge(model, images, trained, asked, metrics, first) for model in models]
    return {metric: torch.stack([each[metric] for each in found]) for metric in metrics}


def judged(
    network: Network, rounds: dict[str, tuple[Weights, Weights]], recent: Sequence[tuple[Weights, Weights]],
    images: Images, trained: AttackConfig, asked: EvaluationConfig,
) -> Judged:  # fmt: skip
    """The split under attack.

    Args:
        network: what the weights belong to.
        rounds: `best` and `last` -> weights and buffers.
        recent: those of the last few rounds.
        images: the split.
        trained: the attack of training.
        asked: what the evaluation attacks by.
    """
    every = [NATURAL, *attacks_of(trained, asked), *(["aa_lite"] if asked.aa_lite else [])]
    once = [NATURAL, ROBUST]

    def right(state: tuple[Weights, Weights], metrics: Sequence[str]) -> Right:
        return judge_each(network.modules(*state), images, trained, asked, metrics)

    best = right(rounds["best"], every)
    last = best if _same(rounds["last"], rounds["best"]) else right(rounds["last"], every)
    each = [last if _same(state, rounds["last"]) else right(state, once) for state in recent]
    mean = {metric: torch.stack([found[metric].double() for found in each]).mean(0) for metric in once}
    return Judged(best, last, mean)


def _same(state: tuple[Weights, Weights], other: tuple[Weights, Weights]) -> bool:
    return all(torch.equal(w, other[0][name]) for name, w in state[0].items())


def check(network: nn.Module, images: Images, trained: AttackConfig, asked: EvaluationConfig) -> list[str]:
    """What is wrong with the attacks or the model, said in the log, a line each."""
    like = next(network.parameters())
    x, y = images.x[:CHECKED].to(like), images.y[:CHECKED].to(like.device)

    def draws(restart: int) -> Tensor:
        return Key(0, 0, "sanity").uniform(0, f"start {restart}", tuple(x.shape)).to(like)

    failures = sanity(network, x, y, attacks_of(trained, asked)[ROBUST], draws, bounded=images.bounded).failures
    for failure in failures:
        log.warning("the evaluation does not deserve belief: %s", failure)
    return failures
