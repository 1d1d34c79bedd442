"""Hydra's sweeper for tables: `+sweep=table1` runs what `<paper>/published.yaml` needs for that table."""

import logging
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus

log = logging.getLogger(__name__)


class TableSweeper(BasicSweeper):
    """Runs the missing cells of a published table; finished ones are skipped, begun ones continued.

    Options, after `hydra.sweeper.` on the command line: `rows` and `columns` (lists; empty: all), `dry_run` (say what
    would run and what it costs, no more). `params`, key by key, are words that count as typed unless others are.
    """

    def __init__(
        self,
        paper: str,
        table: str,
        rows: list[str],
        columns: list[str],
        dry_run: bool,
        max_batch_size: int | None,
        params: dict[str, Any],
    ) -> None:
        super().__init__(max_batch_size, params)
        self.paper, self.table, self.dry_run = paper, table, dry_run
        self.rows, self.columns = list(rows), list(columns)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch, and name at the end what did not finish.

        Raises:
            UserError: a table, row, column or value that is not there, or another command's table.
            SweepError: runs that failed or did not end; the others are finished.
        """
        from common.errors import SweepError, UserError
        from common.tables import published, sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        table = published.read(self.paper).table(self.table)
        if self.config.hydra.job.name != table.command:
            raise UserError(f"table={table.name} is filled by python -m {self.paper}.{table.command}; use that command")
        loader = self.hydra_context.config_loader
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(self._usual(arguments))
        typed = [list(words) for words in self.split_arguments(parsed, None)[0]]
        lists = sweep.expand(table, typed, self.rows, self.columns)
        config = self.config
        jobs = sweep.plan(lists, lambda words: loader.load_sweep_config(config, list(words)))
        for line in sweep.listing(jobs) if self.dry_run else ():
            log.info("%s", line)
        log.info("%s", sweep.describe(table.name, jobs))
        left = [job for job in jobs if not job.finished]
        if self.dry_run or not left:
            return []

        errors: dict[tuple[str, ...], str] = {}
        returns = []
        for batch in self.split_overrides_to_chunks([list(job.overrides) for job in left], self.max_batch_size):
            try:
                returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
            except Exception as error:  # a launcher gives up where one worker died; the folders say what is finished
                log.error("the launcher stopped: %s", error)
                errors |= {tuple(words): f"the launcher stopped: {error}" for words in batch}
                continue
            for words, job in zip(batch, returns[-1], strict=True):
                if job.status == JobStatus.FAILED:
                    errors[tuple(words)] = f"{type(job._return_value).__name__}: {job._return_value}"
        if lines := sweep.ending(left, errors):
            raise SweepError(f"{len(lines)} of {len(left)} runs did not finish", lines)
        log.info("%s: all %d runs are finished", table.name, len(jobs))
        return returns

    def _usual(self, arguments: list[str]) -> list[str]:
        """The arguments with those of `params` that they leave out."""
        from common.tables.cells import key_of

        typed = {key_of(word) for word in arguments}
        return [*arguments, *(f"{key}={value}" for key, value in (self.params or {}).items() if key not in typed)]
