"""Configurations of many runs outside of any run, composed as Hydra does, from files that are read and merged once."""

import copy
import importlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, base, grammar_parser
from omegaconf.errors import OmegaConfBaseException

Compose = Callable[[Sequence[str]], DictConfig]
"""Overrides of a job -> its composed configuration, Hydra's own node included."""


class _Remembered(CachingConfigRepository):
    """Hydra's files of configuration, read once for all jobs that search the same folders; each use gets a copy."""

    def __init__(self, delegate: Any) -> None:
        super().__init__(delegate)
        self.pickled: dict[str, bytes] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """The content of one file, None if there is none."""
        if config_path not in self.pickled:
            self.pickled[config_path] = pickle.dumps(self.delegate.load_config(config_path))
        return cast(ConfigResult | None, pickle.loads(self.pickled[config_path]))

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Remembered":
        """For one job, which sets the folders that it searches: what was read stays common."""
        found = copy.copy(self)
        found.delegate = copy.copy(self.delegate)
        return found


_bases: dict[tuple[str, ...], bytes] = {}
"""Pickled configurations by module, working directory and the words that choose files."""
_words: dict[tuple[str, str], tuple[Override, bool]] = {}
"""Parsed overrides by module and word, as `_Composer._parsed` returns them."""
_parse = cache(grammar_parser.parse)
"""What OmegaConf makes of a text with interpolations: a tree, which it only reads."""


class _Composer:
    """Hydra's `compose`, whose files are merged once for all jobs that choose the same ones.

    Hydra merges the files that the chosen groups name and sets single values afterwards
    (`ConfigLoaderImpl._load_configuration_impl`); here the values are set in a copy of the merged files.
    """

    def __init__(self, module: str, loader: Any) -> None:
        self.module = module
        self.loader = loader

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """The configuration that `words` compose.

        Raises:
            HydraException: they do not compose.
        """
        try:
            return self._composed(words)
        except (HydraException, OmegaConfBaseException, ValueError):
            return self._plainly(words)  # which names the mistake among all words

    def _plainly(self, words: Sequence[str]) -> DictConfig:
        return compose("config", overrides=list(words), return_hydra_config=True)

    def _composed(self, words: Sequence[str]) -> DictConfig:
        parsed = [(word, *self._parsed(word)) for word in words]
        choosing = [word for word, _, chooses in parsed if chooses]
        which = (self.module, os.getcwd(), *choosing)
        if which not in _bases:
            _bases[which] = pickle.dumps(self._plainly(choosing))
        config: DictConfig = pickle.loads(_bases[which])
        self.loader._apply_overrides_to_config([override for _, override, chooses in parsed if not chooses], config)
        own = [override for _, override, _ in parsed if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in own]
        style = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            overrides=own, kv_sep=style.kv_sep, item_sep=style.item_sep, exclude_keys=style.exclude_keys
        )
        return config

    def _parsed(self, word: str) -> tuple[Override, bool]:
        """An override, and whether it chooses files or is Hydra's own; one of a value is neither."""
        if (self.module, word) not in _words:
            (override,) = OverridesParser.create().parse_overrides([word])
            special = override.is_sweep_override() or override.key_or_group.startswith("hydra")
            grouped = special or self._files.group_exists(override.key_or_group)
            _words[self.module, word] = (override, special or (grouped and not isinstance(override.value(), dict)))
        return _words[self.module, word]

    @cached_property
    def _files(self) -> CachingConfigRepository:
        """Every folder that the primary config searches."""
        _, found = self.loader._parse_overrides_and_create_caching_repo("config", [])
        return cast(CachingConfigRepository, found)


@contextmanager
def _parsing_once() -> Iterator[None]:
    """Within this block OmegaConf parses each text once."""
    base.parse = _parse
    try:
        yield
    finally:
        base.parse = grammar_parser.parse


@contextmanager
def composing(paper: str, command: str = "train") -> Iterator[Compose]:
    """Within this block, the configurations of `python -m <paper>.<command>` outside of a run of it.

    The primary config of `train` lies in `conf/<paper>`, that of another command in `conf/<paper>/<command>`.
    """
    importlib.import_module(f"{paper}.{command}")  # registers the schema
    module = f"conf.{paper}" if command == "train" else f"conf.{paper}.{command}"
    with initialize_config_module(module, version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        loader.repository = _Remembered(loader.repository)
        with _parsing_once():
            yield _Composer(module, loader)
