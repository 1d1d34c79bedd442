"""Networks of every make, tiny: which of them adapt, and which are refused.

SHAPES["tied weight"].build() is a network, SHAPES["tied weight"].data(step) what it is called with.
"""

from tests.common.engine.zoo.layers import CONVOLUTIONAL, LANGUAGE, NORMALISED, RECURRENT
from tests.common.engine.zoo.parametrised import PARAMETRISED
from tests.common.engine.zoo.refused import REFUSED
from tests.common.engine.zoo.replays import CHECKPOINTED, MORE
from tests.common.engine.zoo.shape import Shape
from tests.common.engine.zoo.sharing import PARAMETERS, SHARING
from tests.common.engine.zoo.within import WITHIN

__all__ = ["CHECKPOINTED", "RIGHT", "SHAPES", "Shape"]

SHAPES: dict[str, Shape] = {
    **SHARING, **PARAMETERS, **PARAMETRISED, **RECURRENT, **CONVOLUTIONAL, **NORMALISED, **LANGUAGE, **CHECKPOINTED,
    **MORE, **WITHIN, **REFUSED,
}  # fmt: skip
RIGHT = [name for name, shape in SHAPES.items() if not shape.refused]
