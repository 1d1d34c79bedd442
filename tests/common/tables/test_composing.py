"""Configurations composed from files merged once are those of Hydra."""

from typing import Any
from unittest import mock

import pytest
from hydra import compose as by_hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, base, grammar_parser, open_dict

from common.run.schema import plain
from common.tables import published, sweep
from common.tables.cells import merged

TYPED = ["scale=cpu", "inner.eps=1e-8", "seed=3"]


def parsing_each_time() -> Any:
    return mock.patch.object(base, "parse", grammar_parser.parse)


def plainly(words: list[str]) -> DictConfig:
    with parsing_each_time():
        return by_hydra("config", overrides=words, return_hydra_config=True)


def settings_of(config: DictConfig) -> Any:
    with parsing_each_time(), open_dict(config):
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return plain(OmegaConf.to_object(own))


def cells(paper: str) -> list[list[str]]:
    """Words of every training of every published table."""
    tables = [table for table in published.read(paper).tables.values() if table.command == "train"]
    return [
        list(words) for words in sorted({merged(TYPED, job) for table in tables for job, _ in table.at("cpu").jobs()})
    ]


def check(config: DictConfig, wanted: DictConfig) -> None:
    assert config == wanted
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(wanted)
    assert sweep.settings_of(config) == settings_of(wanted)
    assert sweep.schema_in(config) is sweep.schema_in(wanted)


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("paper", ["reckoning", "perk"])
def test_every_published_cell_composes_as_hydra_does(paper: str, every: int) -> None:
    with sweep.composing(paper) as compose:
        for words in cells(paper)[::every]:
            check(compose(words), plainly(words))


@pytest.mark.parametrize(
    "words",
    [
        ["+experiment=proofwriter", "scale=cpu", "inner.lr=0.5", "method=ft_icr"],
        ["inner.lr=0.5", "+experiment=proofwriter", "inner.lr=0.25", "loop.root=a b"],
        ["hydra.job.name=other", "loop.root=somewhere", "hydra/launcher=local", "outer.steps=2"],
        ["outer={steps: 7}", "scale=cpu"],
    ],
)
def test_words_in_any_order_compose_as_hydra_does(words: list[str]) -> None:
    with sweep.composing("reckoning") as compose:
        for _ in range(2):
            check(compose(words), plainly(words))


@pytest.mark.parametrize(
    "words", [["inner.nothing=1"], ["method=nothing"], ["seed=1,2"], ["nothing@here=1"], ["~inner.nothing"]]
)
def test_mistakes_are_told_as_hydra_tells_them(words: list[str]) -> None:
    with sweep.composing("reckoning") as compose:
        with pytest.raises(HydraException) as wanted:
            plainly(["scale=cpu", *words])
        with pytest.raises(HydraException) as caught:
            compose(["scale=cpu", *words])
    assert str(caught.value) == str(wanted.value)


def test_interpolations_are_parsed_once_and_outside_of_the_block_as_ever() -> None:
    with sweep.composing("reckoning") as compose:
        sweep.settings_of(compose(["scale=cpu"]))
        with mock.patch.object(grammar_parser, "InputStream", side_effect=AssertionError("parsed again")):
            sweep.settings_of(compose(["scale=cpu", "seed=2"]))
    assert base.parse is grammar_parser.parse


def test_what_is_done_to_one_configuration_reaches_no_other() -> None:
    with sweep.composing("reckoning") as compose:
        compose(["scale=cpu", "seed=1"]).inner.lr = 9.0
        assert compose(["scale=cpu", "seed=1"]).inner.lr != 9.0
        assert compose(["scale=cpu"]).seed == 0
