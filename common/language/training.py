"""What every training of a language model begins and ends with; the loop between stands in a paper's `train.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from common.engine.outer import Outer
from common.engine.rates import LearnedRates
from common.engine.settings import OuterConfig, Schedule
from common.language.learner import Learner
from common.language.model import LanguageModel
from common.run.export import export
from common.run.origin import BASE, WEIGHTS, of_weights
from common.run.run import Run
from common.run.state import Stateful

MODEL = "model"
"""Folder in the run folder: the selected weights (or the adapter) and the tokenizer, for plain `from_pretrained`."""


class Parts(Protocol):
    """What a run is made of."""

    @property
    def model(self) -> LanguageModel:
        """The network."""

    @property
    def learner(self) -> Learner[Any]:
        """The method around it."""

    @property
    def rates(self) -> LearnedRates | None:
        """Inner learning rates; None for a learner without an inner loop."""

    @property
    def tracked(self) -> Mapping[str, Stateful]:
        """What a checkpoint keeps of it, by name."""


def make_outer(run: Run, parts: Parts, config: OuterConfig, total: int, schedule: Schedule = Schedule.linear) -> Outer:
    """The outer optimiser for `total` steps; it and the parts are what `run` keeps in checkpoints from now on."""
    learns = parts.learner.learns.train()  # from_pretrained leaves dropout off
    outer = Outer(config, learns, parts.rates, total, schedule)
    run.fix(weights_of(parts.model))
    for name, part in {**parts.tracked, "outer": outer}.items():
        run.track(name, part)
    return outer


def weights_of(model: LanguageModel) -> dict[str, str]:
    """Digests of the weights that a run starts from, for `run.fix`; of a frozen base apart, which `evaluate` needs."""
    base = {BASE: model.adapter.fingerprint()} if model.adapter else {}
    return {WEIGHTS: of_weights(model.network.state_dict()), **base}


def export_selected(run: Path, parts: Parts) -> None:
    """Write the model, which is in its selected state, into the folder `run` as plain Hugging Face code reads it.

    Raises:
        UserError: the disk is full or the place not writable.
    """
    folder = run / MODEL
    export(folder, parts.model.files(folder), parts.learner.tokenizer)
