"""A federation of Flower's on this machine, in a folder of its own: certificates, keys, settings, processes, logs."""

import json
import logging
import shlex
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from common.run.files import write_atomic
from common.run.results import FINISHED
from common.run.schema import plain
from fal.config import TrainConfig
from fal.flower import processes, security
from fal.flower.config import Engine, need_flower

log = logging.getLogger(__name__)
SUPERLINK, CONNECTION = "superlink", "loop"
TAKEN, REFUSED = "SuperNode ID:", "[code: 2004]"
"""What a node says when the SuperLink has taken it, or not."""
FAILURE = "failure.txt"
"""Why the run stopped, for whoever waits for it."""
APP = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fal"
version = "1.0.0"
description = "Federated adversarial learning"
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "innerloop"

[tool.flwr.app.components]
serverapp = "fal.flower.app_server:app"
clientapp = "fal.flower.app_client:app"

[tool.flwr.app.config]
settings = {settings}
"""


@dataclass(frozen=True)
class Deployment:
    """Of one run."""

    config: TrainConfig
    run: Path
    """The run folder."""

    @property
    def folder(self) -> Path:
        """All of Flower's files; it is FLWR_HOME as well."""
        return self.run.resolve() / "flower"

    @property
    def settings(self) -> Path:
        """What server and nodes read."""
        return self.folder / "settings.yaml"

    @property
    def failure(self) -> Path:
        """Why the run stopped."""
        return self.folder / FAILURE

    @property
    def nodes(self) -> int:
        """How many there are."""
        return self.config.engine.nodes or self.config.partition.clients

    @property
    def simulated(self) -> bool:
        """Are the nodes Ray's?"""
        return self.config.engine.name is Engine.flower_simulation

    def up(self) -> None:
        """Write what is missing and start what does not run.

        Raises:
            UserError: no Flower, a port in use, certificates or keys that cannot be used, a process that ends.
        """
        engine = self.config.engine
        need_flower(engine)
        self.write()
        there = self.alive()
        fresh = SUPERLINK not in there
        if fresh:
            self.down()  # what a killed SuperLink has left
            there = set()
        names = {node: self.node(node) for node in self.here if self.node(node) not in there}
        ports = {name: self.node_port(node) for node, name in names.items()}
        processes.refuse_taken({SUPERLINK: engine.port, **ports} if fresh else ports)
        if fresh:
            child, end = self.start(SUPERLINK, self.superlink_command()), time.monotonic() + engine.start_seconds
            listens = partial(processes.listens, "127.0.0.1", engine.port)
            processes.wait(listens, child, self.log(SUPERLINK), end, engine.poll_seconds)
            for node in self.every:
                self.flwr("supernode", "register", str(self.folder / f"{self.node(node)}.pub"), CONNECTION)
                if node not in self.here:
                    log.info("%s, with these files at hand: %s", self.node(node), shlex.join(self.node_command(node)))
        for node in names:
            self.join(node, again=not fresh)

    def join(self, node: int, *, again: bool) -> None:
        """Start a node and wait until the SuperLink has taken it.

        Args:
            node: its number.
            again: it may have been killed. The SuperLink then refuses it until it misses the killed one, a minute
                later; so it is tried until then.

        Raises:
            UserError: it ends, or is not taken in time.
        """
        engine, name = self.config.engine, self.node(node)
        end, log_file = time.monotonic() + engine.start_seconds, self.log(name)
        while True:
            before = log_file.stat().st_size if log_file.is_file() else 0
            child = self.start(name, self.node_command(node))
            try:
                taken = partial(processes.said, log_file, before, TAKEN)
                return processes.wait(taken, child, log_file, end, engine.poll_seconds)
            except processes.Ended as error:
                if not again or REFUSED not in str(error) or time.monotonic() >= end:
                    raise

    def log(self, name: str) -> Path:
        """What a process has said."""
        return self.folder / f"{name}.log"

    def alive(self) -> set[str]:
        """Names of the processes that run."""
        return {name for name, group in processes.running(self.folder).items() if group.alive}

    @property
    def every(self) -> range:
        """The nodes that are processes."""
        return range(0 if self.simulated else self.nodes)

    @property
    def here(self) -> range:
        """Those of them on this machine."""
        return self.every if self.config.engine.nodes_here else range(0)

    def write(self) -> None:
        """Settings, connection, app; certificates and keys where they are missing."""
        (self.folder / "app").mkdir(parents=True, exist_ok=True)
        files = security.certificates(self.folder, self.config.engine.host)
        for node in self.every:
            security.node_key(self.folder / self.node(node))
        write_atomic(self.settings, OmegaConf.to_yaml(OmegaConf.create(plain(self.config))))
        write_atomic(self.folder / "app" / "pyproject.toml", APP.format(settings=json.dumps(str(self.settings))))
        connection = [
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]',
            f'address = "127.0.0.1:{self.config.engine.port}"',
            f"root-certificates = {json.dumps(str(files.authority))}",
        ]
        if self.simulated:
            connection.append(f"options.num-supernodes = {self.nodes}")
        write_atomic(self.folder / "config.toml", "\n".join(connection) + "\n")

    def superlink_command(self) -> list[str]:
        """It demands a registered key of every node and installs nothing."""
        files = security.Certificates.of(self.folder)
        return [
            processes.program("flower-superlink"),
            *("--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)),
            *("--ssl-ca-certfile", str(files.authority)),
            *("--host", "127.0.0.1" if self.config.engine.host in ("127.0.0.1", "localhost") else "0.0.0.0"),
            *("--port", str(self.config.engine.port), "--disable-runtime-dependency-installation"),
            "--simulation" if self.simulated else "--enable-supernode-auth",
        ]

    def node_command(self, node: int) -> list[str]:
        """What starts a node, on this machine or, with its key and ca.crt, on another."""
        engine = self.config.engine
        own = f'partition-id={node} num-partitions={self.nodes} settings="{self.settings}"'
        return [
            processes.program("flower-supernode"),
            *("--root-certificates", str(security.Certificates.of(self.folder).authority)),
            *("--superlink", f"{engine.host}:{engine.port}"),
            *("--auth-supernode-private-key", str(self.folder / self.node(node))),
            *("--port", str(self.node_port(node)), "--node-config", own),
        ]

    @staticmethod
    def node(number: int) -> str:
        """A node's name, and its key's."""
        return f"node{number}"

    def node_port(self, node: int) -> int:
        """Of its own interface, towards its apps."""
        return self.config.engine.port + 1 + node

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start one of the processes."""
        log.info("starting %s", name)
        return processes.start(name, command, self.folder, self.log(name))

    def flwr(self, *words: str) -> str:
        """A command of Flower's."""
        return processes.call([processes.program("flwr"), *words], self.folder, self.config.engine.start_seconds)

    def submit(self) -> int:
        """Start the run on a federation that is up; returns Flower's number of it."""
        self.failure.unlink(missing_ok=True)
        said = self.flwr("run", str(self.folder / "app"), CONNECTION, "--format", "json")
        return int(json.loads(said[said.index("{") :])["run-id"])

    def status(self, number: int) -> str:
        """Of one of Flower's runs."""
        said = self.flwr("ls", CONNECTION, "--run-id", str(number), "--format", "json")
        (found,) = json.loads(said[said.index("{") :])["runs"]
        return str(found["status"])

    def down(self) -> list[str]:
        """End all processes; returns their names."""
        found = processes.running(self.folder)
        processes.stop([process for group in found.values() for process in group.members])
        return sorted(found)

    @property
    def finished(self) -> bool:
        """Has the run its results?"""
        return (self.run / FINISHED).is_file()
