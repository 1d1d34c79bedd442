"""Results of a benchmark's cases in a file, so that a run that was cut off goes on where it was."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic
from scripts.benchmark.case_results import Result, to_result


class Kept:
    """What one state of the code has measured; one line of JSON a case."""

    def __init__(self, file: Path | None, revision: str) -> None:
        """`file` may be missing; None: nothing is kept. Results of other revisions in it are dropped.

        Raises:
            UserError: it is no such file.
        """
        self.file, self.revision, self._found = file, revision, dict[str, Result]()
        if file is None or not file.exists():
            return
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["revision"] == revision:
                    self._found[entry["case"]] = to_result(entry["result"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}, line {number}: no result of a benchmark; give --keep another file") from error

    def of(self, case: str, measured: Callable[[], Result]) -> Result:
        """The result of the case called so: the kept one, or what is `measured` now; failures are not kept."""
        if case not in self._found:
            found = measured()
            if found.error or self.file is None:
                return found
            self._found[case] = found
            entries = (
                {"revision": self.revision, "case": name, "result": asdict(r)} for name, r in self._found.items()
            )
            write_atomic(self.file, "".join(json.dumps(entry) + "\n" for entry in entries))
        return self._found[case]
