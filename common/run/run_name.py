"""The resolver `run_name`: a run's folder from the command line's overrides."""

import hashlib
import re

from omegaconf import OmegaConf


def run_name(overrides: str) -> str:
    """Name of a run's folder.

    Never empty, short enough for any disk, and without the characters that Hydra or a shell would want quoted, so that
    `run=<folder>` can be typed as it is shown.
    """
    name = re.sub(r"[^\w.+-]+", "_", overrides).strip("_") or "default"
    return name if len(name) <= 200 else f"{name[:180]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
