"""Memory of one gradient, from one that is taken without data: training without an inner loop."""

from typing import Any

from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

from common.engine.derivatives import InnerLoss, plain_gradient
from common.engine.footprint import course_of
from common.engine.hollow import without_data
from common.engine.weights import Weights


def gradient_peak(loss: InnerLoss, weights: Weights, part: Any) -> int:
    """Most bytes that the gradient of `loss(weights, part)` holds, itself included, above weights and data.

    As the first entry of `common.engine.footprint.Footprint`, without the rest, which costs several times as much to
    count. `weights` and `part` may be without data (fake tensors).

    Raises:
        UserError: the loss needs data.
    """
    mode = detect_fake_mode(list(weights.values())) or FakeTensorMode(allow_non_fake_inputs=True)
    hollow: Weights = {name: mode.from_tensor(w.detach()) for name, w in weights.items()}
    with without_data(mode):
        return max(most for _, most in course_of(lambda: plain_gradient(loss, hollow, part), mode, {}))
