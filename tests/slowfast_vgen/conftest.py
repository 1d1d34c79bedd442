"""What several tests of this paper need and takes seconds to make."""

import pytest

from slowfast_vgen.data import world_of
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.metrics.features import Encoders, encoders
from slowfast_vgen.worlds.config import DataConfig


@pytest.fixture(scope="session")
def trained() -> Encoders:
    """Encoders of the small rooms, trained for as long as it takes to tell a left turn from a right one."""
    return encoders(world_of(DataConfig()), "rooms", 0, FeaturesConfig(steps=150))
