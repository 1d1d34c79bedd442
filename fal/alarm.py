"""Training by a single attack step may overfit to it: robust to FGSM and to nothing else (arXiv 2001.03994).

It happens within a few hundred steps, so dev is looked at under both attacks, and who trains is told.
"""

import logging
from collections.abc import Mapping

from fal.adversary.config import Kind
from fal.config import TrainConfig
from fal.objective import SELECTION
from fal.settings import Objective

log = logging.getLogger(__name__)
FGSM, APART = "fgsm", "pgd_minus_fgsm"
GAP = 0.2
"""So much less accuracy under PGD than under FGSM is overfitting; sound models lose a few hundredths."""


class Alarm:
    """Of one run; nothing where training takes several attack steps, or none."""

    def __init__(self, config: TrainConfig) -> None:
        """`config`: of the run."""
        cheap = config.attack.kind is Kind.fgsm and config.method.objective is not Objective.clean
        self.metrics = (FGSM,) if cheap else ()
        """What of dev it needs to know besides."""
        self.method, self.told = config.method.name, False

    def look(self, step: int, shown: Mapping[str, float]) -> dict[str, float]:
        """What is logged beside `shown`, accuracies on dev; the first time that they lie far apart it warns."""
        if not self.metrics:
            return {}
        apart = shown[SELECTION.metric] - shown[FGSM]
        if apart < -GAP and not self.told:
            self.told = True
            log.warning(
                "round %d: method=%s is right on %.1f %% of dev under FGSM and on %.1f %% under PGD: catastrophic "
                "overfitting to the single step; use a shorter one (attack.step_size), a smaller optimiser.lr, or "
                "several steps (method=fat); the round that dev selects may lie before it",
                step, self.method, 100 * shown[FGSM], 100 * shown[SELECTION.metric],
            )  # fmt: skip
        return {APART: apart}
