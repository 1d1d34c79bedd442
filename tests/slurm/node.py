"""A real SLURM of one node with accounting, on loopback, in one folder: to test launchers, or to try one.

python -m tests.slurm.node check           can it be started here? Exit 1 and the reason if not
python -m tests.slurm.node install         its Debian packages, as root, without starting their services
python -m tests.slurm.node up FOLDER       start it, as root; prints the line that lets sbatch and squeue find it
python -m tests.slurm.node down FOLDER     end what `up` started, and nothing else

Everything lies below the folder, which only root can enter: configuration, keys, database, logs. Ports are free ones of
loopback. The node claims as many cores and GPUs as it is told, whatever the machine has; its GPUs are names for the
null device, enough for jobs to get different CUDA_VISIBLE_DEVICES. Two partitions: `main`, whose jobs are preempted and
go back to the queue, and `urgent`, whose jobs preempt them.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from scripts.words import USER_ERROR, mistakes_told

PACKAGES = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
"""Program -> Debian's package that has it."""

PATIENCE = 60.0
"""Seconds a daemon may take to answer, or to end."""

SLURMDBD = """\
DbdHost=localhost
DbdPort={dbd_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
"""

# KillWait: seconds between SIGTERM and SIGKILL, for a cancelled job and for a preempted one.
# JobRequeue=0: jobs go back to the queue only if they ask for it themselves.
SLURM = """\
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
JobRequeue=0
KillWait=2
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge.socket
SlurmdParameters=config_overrides
{gres}NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000000 {node_gres}State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=urgent Nodes={host} State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Daemon:
    """A program in the foreground and the command that succeeds once it answers."""

    name: str
    command: Sequence[str]
    answers: Sequence[str]


def missing() -> list[str]:
    """Debian's packages that are not there."""
    return sorted(package for program, package in PACKAGES.items() if _program(program) is None)


def obstacle() -> str | None:
    """Why no SLURM can be started here and what to do about it; None if one can."""
    if os.geteuid() != 0:
        return "starting SLURM takes root: run this as root, for example in a container"
    if lacking := missing():
        return f"Debian packages are missing: {' '.join(lacking)}; install them with `make slurm-packages` (as root)"
    return None


def install() -> None:
    """Install the packages; none of their services is started.

    Raises:
        UserError: not root, not a Debian, or no package source can be reached.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(f"installing takes root and apt-get; the packages are {' '.join(sorted(PACKAGES.values()))}")
    apt = ["apt-get", "--option=Acquire::Retries=1", "--option=Acquire::http::Timeout=20"]
    asks = Path("/usr/sbin/policy-rc.d")  # Debian asks this program, if there is one, whether a service may start
    try:
        with ExitStack() as stack:
            if not asks.exists():
                stack.callback(asks.unlink)
                asks.write_text("#!/bin/sh\nexit 101\n")
                asks.chmod(0o755)
            given = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for words in (["update"], ["install", "--yes", "--no-install-recommends", *sorted(PACKAGES.values())]):
                subprocess.run([*apt, *words], env=given, stdin=subprocess.DEVNULL, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"{' '.join(error.cmd)} ended with {error.returncode}; read what it printed") from error


def up(folder: Path, *, cpus: int = 2, gpus: int = 2) -> dict[str, str]:
    """Start the daemons and wait until the node takes jobs; returns the environment that commands need.

    Raises:
        UserError: it cannot be started here, it runs already, or a daemon did not come up (nothing is left running).
    """
    if reason := obstacle():
        raise UserError(reason)
    folder = folder.resolve()
    if any(_running(folder / "run" / f"{name}.started") for name in ("munged", "slurmctld", "slurmd")):
        raise UserError(f"{folder}: SLURM runs there already; end it with `python -m tests.slurm.node down {folder}`")
    environment = _write(folder, cpus, gpus)
    with ExitStack() as stack:
        stack.callback(down, folder)
        for daemon in _daemons(folder):
            _start(daemon, folder, environment)
            if daemon.name == "mariadbd":
                _call(_sql(folder, "create database if not exists slurm"), environment)
            if daemon.name == "slurmdbd":  # slurmctld refuses to start for a cluster that accounting does not know
                _call([_path("sacctmgr"), "--immediate", "add", "cluster", "onenode"], environment, check=False)
        idle = [_path("sinfo"), "--noheader", "--partition=main", "--format=%T"]
        _wait(lambda: _call(idle, environment, check=False).stdout.strip() == "idle", "the node", folder)
        stack.pop_all()
    return environment


def empty_queue(environment: Mapping[str, str]) -> None:
    """Kill all jobs and wait until they are gone.

    Raises:
        UserError: they are not, after `PATIENCE` seconds.
    """
    until = time.monotonic() + PATIENCE
    while _call([_path("squeue"), "--noheader"], environment, check=False).stdout.strip():
        if time.monotonic() > until:
            raise UserError(f"jobs did not end within {PATIENCE:.0f} s; look at them with squeue")
        _call([_path("scancel"), "--full", "--signal=KILL", "--user=root"], environment, check=False)
        _call([_path("scancel"), "--user=root"], environment, check=False)
        time.sleep(0.2)


def down(folder: Path) -> None:
    """End the jobs and then the daemons that `up` started in this folder, the last one first."""
    if _running(folder / "run" / "slurmctld.started") and _running(folder / "run" / "slurmd.started"):
        empty_queue({"SLURM_CONF": f"{folder.resolve()}/slurm.conf"})
    for path in sorted((folder / "run").glob("*.started"), key=lambda path: path.stat().st_mtime, reverse=True):
        if (pid := _running(path)) is not None:
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + PATIENCE
            while _running(path) is not None:
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        path.unlink()


def _write(folder: Path, cpus: int, gpus: int) -> dict[str, str]:
    """Folders and configuration; returns the environment that makes commands use them."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("log", "run", "state", "spool", "database"):
        (folder / name).mkdir(exist_ok=True)
    dbd_port, ctld_port, slurmd_port = _free_ports(3)
    names = {
        "folder": folder, "host": socket.gethostname().partition(".")[0], "cpus": cpus, "dbd_port": dbd_port,
        "ctld_port": ctld_port, "slurmd_port": slurmd_port, "gres": "", "node_gres": "",
    }  # fmt: skip
    if gpus:
        for index in range(gpus):
            (folder / f"gpu{index}").unlink(missing_ok=True)
            (folder / f"gpu{index}").symlink_to(os.devnull)  # SLURM wants devices; which one nobody asks
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n")
        names |= {"gres": "GresTypes=gpu\nAccountingStorageTRES=gres/gpu\n", "node_gres": f"Gres=gpu:{gpus} "}
    (folder / "slurm.conf").write_text(SLURM.format(**names))
    (folder / "slurmdbd.conf").write_text(SLURMDBD.format(**names))  # slurmdbd looks beside SLURM_CONF
    (folder / "slurmdbd.conf").chmod(0o600)
    if not (folder / "munge.key").exists():
        _call([_path("mungekey"), "--create", f"--keyfile={folder}/munge.key"], os.environ)
    environment = {"SLURM_CONF": f"{folder}/slurm.conf"}
    if not (folder / "database" / "mysql").is_dir():
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}/database"]
        _call([*install, "--skip-test-db", "--auth-root-authentication-method=socket"], environment)
    return environment


def _daemons(folder: Path) -> list[Daemon]:
    """In the order of their needs."""
    socket_of = f"--socket={folder}/munge.socket"
    munged = [
        _path("munged"), "--foreground", "--force", socket_of, f"--key-file={folder}/munge.key",
        f"--log-file={folder}/log/munged.log", f"--pid-file={folder}/run/munged.pid",
        f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip
    mariadbd = [
        _path("mariadbd"), "--no-defaults", "--user=root", f"--datadir={folder}/database", "--skip-networking",
        f"--socket={folder}/database.socket", f"--pid-file={folder}/run/mariadbd.pid", "--innodb-buffer-pool-size=64M",
    ]  # fmt: skip
    controllers = [_path("scontrol"), "ping"]
    return [
        Daemon("munged", munged, [_path("munge"), "--no-input", socket_of]),
        Daemon("mariadbd", mariadbd, _sql(folder, "select 1")),
        Daemon("slurmdbd", [_path("slurmdbd"), "-D"], [_path("sacctmgr"), "list", "cluster"]),
        Daemon("slurmctld", [_path("slurmctld"), "-D"], controllers),
        Daemon("slurmd", [_path("slurmd"), "-D"], controllers),
    ]


def _sql(folder: Path, statement: str) -> list[str]:
    return ["mariadb", "--no-defaults", "--user=root", f"--socket={folder}/database.socket", f"--execute={statement}"]


def _start(daemon: Daemon, folder: Path, environment: Mapping[str, str]) -> None:
    """Start one daemon, note its process and wait for its answer."""
    # the client library has no other way to be told of a socket
    given = {**os.environ, **environment, "MYSQL_UNIX_PORT": f"{folder}/database.socket"}
    output = folder / "log" / f"{daemon.name}.out"
    pid = os.posix_spawn(  # not subprocess, whose processes are meant to end with this one
        _path(daemon.command[0]), list(daemon.command), given, setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )  # fmt: skip
    (folder / "run" / f"{daemon.name}.started").write_text(f"{pid} {_born(pid)}")

    def ready() -> bool:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            raise UserError(f"{daemon.name} ended with {code}; {_last_words(folder, daemon.name)}")
        return _call(daemon.answers, environment, check=False).returncode == 0

    _wait(ready, daemon.name, folder)


def _wait(ready: Callable[[], bool], what: str, folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > until:
            raise UserError(f"{what} did not come up within {PATIENCE:.0f} s; {_last_words(folder, what)}")
        time.sleep(0.1)


def _last_words(folder: Path, name: str) -> str:
    """Where to read on, and the end of the daemon's logs."""
    texts = [path.read_text(errors="replace") for path in sorted((folder / "log").glob(f"{name}.*"))]
    return "\n".join([f"read {folder}/log", *"\n".join(texts).splitlines()[-15:]])


def _call(
    command: Sequence[str], environment: Mapping[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise UserError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def _program(name: str) -> str | None:
    """Its path; daemons lie where a user's PATH may not look."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def _path(name: str) -> str:
    return _program(name) or name


def _free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _born(pid: int) -> str | None:
    """When the process was started, in ticks since the machine was; None if there is none, or only its corpse."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else fields[18]


def _running(path: Path) -> int | None:
    """The process noted in the file, if it still is that one."""
    if not path.is_file():
        return None
    pid, born = path.read_text().split()
    return int(pid) if _born(int(pid)) == born else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "install", "up", "down"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--cpus", type=int, default=2, help="cores the node claims (2)")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs the node claims (2)")
    given = parser.parse_args()
    if given.action in ("up", "down") and given.folder is None:
        parser.error(f"{given.action} takes a folder")
    with mistakes_told(1 if given.action == "check" else USER_ERROR):
        if given.action == "check":
            if reason := obstacle():
                raise UserError(reason)
        elif given.action == "install":
            install()
        elif given.action == "down":
            down(given.folder)
        else:
            for name, value in up(given.folder, cpus=given.cpus, gpus=given.gpus).items():
                print(f"export {name}={value}")


if __name__ == "__main__":
    main()
