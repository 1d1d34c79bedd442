"""Entry points: Hydra's `main` with errors a user can act on.

This module and nothing it imports needs torch, so `--help` and `--cfg job` are quick.
"""

import errno
import functools
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from common import utf8
from common.data.packed import Bounds, bounded
from common.errors import SweepError, UserError
from common.run import local, run_name  # noqa: F401 -- register the resolvers of conf/common
from common.run.keys import BY_RESOLVER, other_form, unknown_key
from common.run.schema import flat
from common.run.usage import usage

USER_ERROR = 2
"""Exit code of a mistake in what the user gave; 1 stays for mistakes of ours, and for a sweep with runs that failed."""
INTERRUPTED = 130

COMPOSING = re.compile(r"(?P<file>In .*?): \w+ raised while composing config:\n(?P<what>.*)\n\s*full_key: (?P<key>\S+)")
"""Hydra's error about a value in a configuration file."""

Task = Callable[[DictConfig], Any]
log = logging.getLogger(__name__)


def entry(config_path: str, config_name: str = "config") -> Callable[[Task], Callable[[], None]]:
    """Decorate the task function of a `python -m <paper>.<room>` command.

    `hydra.main` and `guard`, and in addition errors of composing the configuration and those that end a sweep are
    one message instead of a stack trace. Set HYDRA_FULL_ERROR=1 for the trace. `--help` shows the module's docstring
    and the choices of every group.

    Args:
        config_path: package of the primary config, as `pkg://conf.<paper>`.
        config_name: its name.
    """

    def decorate(task: Task) -> Callable[[], None]:
        composed = hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(guard(task))

        @functools.wraps(task)
        def main() -> None:
            utf8.ensure()
            if {"-h", "--help"} & set(sys.argv[1:]):
                sys.stdout.write(usage(task.__globals__["__doc__"], config_path, config_name))
                return
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                composed()
                return
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _terminate)
            os.environ["HYDRA_FULL_ERROR"] = "1"  # the documented way to get exceptions instead of Hydra's own exit
            try:
                composed()
            except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
                if (message := explain(error)) is None:
                    raise
                _stop(message, 1 if isinstance(error, SweepError) else USER_ERROR)
            except KeyboardInterrupt:
                _stop("interrupted; the same command skips finished runs and continues the others", INTERRUPTED)
            finally:
                os.environ.pop("HYDRA_FULL_ERROR", None)

        return main

    return decorate


def guard(task: Task) -> Task:
    """Turn a task's `UserError` into a message and exit code 2; within a sweep log it and let the other jobs go on."""

    @functools.wraps(task)
    def guarded(cfg: DictConfig) -> Any:
        try:
            with bounded(_bounds_of(cfg)):
                return task(cfg)
        except (UserError, OSError) as error:
            if (message := explain(error)) is None:
                raise
            if not in_sweep():
                _stop(message)
            log.error("%s", message)
            raise

    return guarded


def _bounds_of(cfg: DictConfig) -> Bounds:
    """What `data.bounds` of a composed configuration says, if it has data."""
    given = OmegaConf.select(cfg, "data.bounds")
    return Bounds() if given is None else Bounds(**cast(dict[str, int], OmegaConf.to_container(given, resolve=True)))


def in_sweep() -> bool:
    """Is this one job of several (`-m`)?"""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name() -> str | None:
    """The sweep that this job was started from (`+sweep=<name>`), None without one."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    name = choices.get("sweep")
    return None if name is None else str(name)


def local_jobs() -> int | None:
    """Processes of the `hydra/launcher=local` sweep that this is a job of, -1 for one a core; None outside one."""
    if not in_sweep() or HydraConfig.get().runtime.choices.get("hydra/launcher") != "local":
        return None
    return int(HydraConfig.get().launcher.n_jobs)


def explain(error: BaseException) -> str | None:
    """The message for a user, None if the error is not one a user can do something about."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.filename or 'the disk'}: {error.strerror}; free space there or set loop.root to a bigger disk"
    if isinstance(error, OmegaConfBaseException) and str(error).startswith(BY_RESOLVER):
        return str(error).removeprefix(BY_RESOLVER).partition("\n")[0]
    if isinstance(error, HydraException):
        return _explain_composition(error)
    return None


def _explain_composition(error: HydraException) -> str:
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key and cause.parent_node is not None:
        root = cause.parent_node._get_root()
        leaves = flat(OmegaConf.to_container(root, resolve=False, enum_to_str=True))  # type: ignore[arg-type]
        known = [key for key in leaves if not key.startswith("hydra.")]
        groups = dict.fromkeys(above for key in known for above in itertools.accumulate(key.split(".")[:-1], _dotted))
        typed = re.match(r"Could not override '([^']+)'", str(error))  # OmegaConf names the part that it did not find
        return str(unknown_key(typed[1] if typed else str(cause.full_key), [*known, *groups]))
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        where = str(error).strip().partition("\n")[0]
        what = str(cause.msg).strip().partition("\n")[0]  # then OmegaConf's names of types
        if (mistaken := other_form(str(cause.full_key), what, where)) is not None:
            return mistaken
        return f"{cause.full_key}: {what} ({where}); `--cfg job` shows every key with its value"
    if found := COMPOSING.match(str(error).strip()):  # a file's value: Hydra keeps the text alone
        what = other_form(found["key"], found["what"], "") or f"{found['key']}: {found['what']}"
        return f"{found['file']}: {what}"
    return str(error).strip()


def _dotted(above: str, name: str) -> str:
    return f"{above}.{name}"


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """Leave as an exception does, so that a sweep's processes are not left behind."""
    raise SystemExit(128 + number)


def _stop(message: str, code: int = USER_ERROR) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)
