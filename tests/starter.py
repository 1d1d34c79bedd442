"""Starts a training command often and at once.

One process imports the libraries and then forks a child for every start, so that a start costs a fraction of a second
and not a cold one. The child is a real process running the real command: it can be killed, and its limits are its own.
"""

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PROGRAM = """
import json, os, sys
from importlib import import_module
from transformers import AutoModelForCausalLM, AutoTokenizer
import common.run.export, common.engine.outer, common.run.run

command, *more = sys.argv[1:]
for name in more:
    import_module(name)
main = import_module(command).main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        output, before, words = json.loads(line)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.argv = [command, *words]
        exec(before)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Starter:
    """The process that forks; one child at a time."""

    def __init__(self, command: str, *more: str) -> None:
        """The modules of `command`, and `more` that it defers, are imported while the caller goes on."""
        words = [sys.executable, "-c", PROGRAM, command, *more]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)

    def start(self, output: Path, words: list[str], before: str = "") -> int:
        """Process id of a new start of the command; `before` is Python that it runs first."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(output), before, words]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """Exit code of the child, negative if a signal ended it."""
        assert self.process.stdout
        return int(self.process.stdout.readline())
