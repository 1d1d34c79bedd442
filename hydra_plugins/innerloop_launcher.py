"""Hydra's launcher for one machine: `hydra/launcher=local`. Its processes are those of common/run/pool.py."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class LocalLauncher(Launcher):
    """Runs the jobs of a sweep in `n_jobs` processes at once; -1 is one a core, -2 one less."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = int(n_jobs)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a job needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What each job returned; a job whose process died has failed.

        Raises:
            UserError: no process is asked for.
            SystemExit: a stop signal came and the jobs have saved.
        """
        import cloudpickle

        from common.errors import UserError
        from common.run import outlook
        from common.run.local import cores
        from common.run.pool import Lost, Pool

        setup_globals()
        processes = self.n_jobs if self.n_jobs >= 0 else max(1, cores() + 1 + self.n_jobs)
        if not processes:
            raise UserError("hydra.launcher.n_jobs=0: use a number above 0, or -1 for one process a core")
        shown = _formatted(self.config.hydra.hydra_logging, "[%(asctime)s][HYDRA] ", "")
        configure_log(shown, self.config.hydra.verbose)
        jobs = [tuple(overrides) for overrides in job_overrides]
        state = Singleton.get_state()
        call = _Call(self.hydra_context, self.config, self.task_function, state, jobs, initial_job_idx)
        names = outlook.names([filter_overrides(job) for job in jobs])
        found = Pool(cloudpickle.dumps((sys.argv, call)), names, processes).run()
        return [
            _failed(job, result.reason) if isinstance(result, Lost) else result
            for job, result in zip(jobs, found, strict=True)
        ]


@dataclass
class _Call:
    """What a process needs to make any job of the sweep."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    singletons: dict[Any, Any]
    jobs: list[tuple[str, ...]]
    first: int
    """Number of the first job."""

    def __call__(self, place: int, name: str) -> JobReturn:
        setup_globals()
        Singleton.set_state(self.singletons)
        config = self.context.config_loader.load_sweep_config(self.config, list(self.jobs[place]))
        number = self.first + place
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
            named = name.replace("%", "%%") + ": %(message)s"
            config.hydra.job_logging = _formatted(config.hydra.job_logging, "%(message)s", named)
        HydraConfig.instance().set_config(config)
        return run_job(
            hydra_context=self.context, config=config, task_function=self.task,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip


def _formatted(logging: DictConfig, old: str, new: str) -> DictConfig:
    """A logging configuration in whose formats `new` stands for `old`."""
    changed = logging.copy()
    with open_dict(changed):
        for formatter in (changed.get("formatters") or {}).values():
            formatter.format = str(formatter.format).replace(old, new)
    return changed


def _failed(overrides: tuple[str, ...], reason: str) -> JobReturn:
    from common.errors import UserError

    found = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    found.return_value = UserError(reason)
    return found
