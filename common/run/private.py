"""What tells where and by whom something was made: absolute paths, a host, a user, keys. Found, and left out."""

import getpass
import os
import re
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.fields import counts
from common.run.schema import schema_of

SHARE = r"\\{2,}[\w.?-]+\\+[\w$]"
"""How a path begins that names another Windows machine."""
ABSOLUTE = re.compile(
    rf"^(/|~|[A-Za-z]:[\\/])\S*$|(^|[\s=,:\[{{(\"'`])((/|~/)[\w.@-]+/|{SHARE})|\b[A-Za-z]:\\|\bfile://"
)
"""A string that is an absolute path, or holds one of two parts at least: `/no_think` in a text is none."""
EMBEDDED = re.compile(rf"(?<![^\s=,:\[{{(\"'`])(?:(?:/|~/)[\w.@-]+/|{SHARE}|[A-Za-z]:\\|file://)[^\s,\]}})\"'`]*")
"""Such a path within a text."""
SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|wandb_v\d_\w{20,}|xox[abp]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|glpat-[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
    r"|[A-Z_]*(?:API_?KEY|TOKEN|SECRET|PASSWORD)=['\"]?[\w./+-]{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^\s/:@]+:[^\s/@]+@"
)
"""Keys by the forms that their makers give them, and a password in an address."""
SECRETIVE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""
SHORTEST_SECRET = 8
"""In characters; shorter values of such variables are words such as `true`."""
ANYBODY = {"", "root", "user", "admin", "ubuntu", "runner", "localhost", "node", "login", "gpu", "cpu"}
"""Names that tell nothing."""
SHORTEST_HOST = 3
"""In characters; the part of a name before its domain may be shorter, and then be any word."""
FOLDERS: Mapping[str, str | None] = {
    "loop.root": "runs", "root": None, "cache": "runs/data", "export": None, "run": None,
}  # fmt: skip
"""Dotted key, else its last part -> what stands in place of a place of this machine."""


def telling(value: Any, hosts: Iterable[str] = (), people: Iterable[str] = ()) -> str:
    """Why `value`, plain data of any nesting, tells too much, its keys included; empty: it does not.

    Args:
        value: as JSON and YAML hold it.
        hosts: further machines besides this one, found with their domain and without.
        people: names of accounts.
    """
    whole = {*hosts, socket.gethostname()}
    short = {host.partition(".")[0] for host in whole}
    words = {*whole, *people, *(name for name in short if len(name) >= SHORTEST_HOST and not name.isdigit())}
    names = sorted(map(re.escape, {word.lower() for word in words} - ANYBODY))
    named = re.compile(rf"(?<![\w.-])({'|'.join(names)})(?![\w-])", re.IGNORECASE) if names else None
    secrets = secrets_here()
    for text in strings(value):
        if SECRET.search(text) or any(secret in text for secret in secrets):
            return "holds what looks like a key or password; take it out and make that one invalid"
        if ABSOLUTE.search(text):
            return f"is {text!r}, an absolute path; give a relative one or a name and run again"
        if named is not None and named.search(text):
            return f"is {text!r}, which names a host or a user; run again without it"
    return ""


def secrets_here() -> set[str]:
    """The secrets in this process's environment."""
    there = {value for name, value in os.environ.items() if SECRETIVE.search(name)}
    return {value for value in there if len(value) >= SHORTEST_SECRET and not ABSOLUTE.match(value)}


def strings(value: Any) -> Iterator[str]:
    """All strings in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from strings(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from strings(each)


def public_settings(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """The configuration with the usual folders where it names some that cannot change a number; its hash stays."""

    def kept(key: str, value: Any) -> Any:
        name = key if key in FOLDERS else key.rpartition(".")[2]
        return FOLDERS[name] if value is not None and name in FOLDERS and not counts(key, schema) else value

    return dict(_changed(dict(config), kept))


def public_command(command: str, schema: type) -> str:
    """The command as a user would type it, without words that cannot change a number, such as folders."""
    words = shlex.split(as_typed(command))
    own = [word for word in words if not _key(word).startswith("hydra.")]
    changing = [word for word in own if "=" not in word or counts(_key(word), schema)]
    return shlex.join(word for word in changing if "=" in word or not ABSOLUTE.match(word))


def as_typed(command: str) -> str:
    """`python -m <package>.<module> ...` for what Python makes of it, `python /.../<package>/<module>.py ...`."""
    words = shlex.split(command)
    if len(words) > 1 and words[1].endswith(".py"):
        script = Path(words[1])
        words[1:2] = ["-m", f"{script.parent.name}.{script.stem}"]
    return shlex.join(words)


def public_environment(environment: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """`environment.json` without host and folders, that of earlier starts included."""

    def kept(key: str, value: Any) -> Any:
        return (
            public_command(value, schema) if key.rpartition(".")[2] == "command" and isinstance(value, str) else value
        )

    return dict(_without_host(_changed(dict(environment), kept)))


def told(paper: str, settings: Mapping[str, Any], environment: Mapping[str, Any], *, machine: bool) -> dict[str, Any]:
    """What a tracker is told of a run: its settings, and the environment under the key of that name.

    Args:
        paper: whose settings they are.
        settings: the configuration as plain data.
        environment: the content of `environment.json`.
        machine: also what tells of the machine; else no host, the last part alone of an absolute path, and the
            command without folders.
    """
    if machine:
        return {**settings, "environment": dict(environment)}
    schema = schema_of(paper, settings)
    found = {**public_settings(settings, schema), "environment": public_environment(environment, schema)}
    return dict(_changed(found, lambda _, value: _short(value) if isinstance(value, str) else value))


def _short(text: str) -> str:
    """Text whose words, and values of words, are no absolute paths: of each its last part stays."""
    if ABSOLUTE.match(text) and not re.search(r"\s", text):
        return _last(text)
    return EMBEDDED.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    return re.split(r"[\\/]+", path.rstrip("\\/"))[-1] or path


def _changed(value: Any, change: Any, key: str = "") -> Any:
    """Plain data with `change(dotted key, leaf)` for its leaves; items of a list have the list's key."""
    if isinstance(value, dict) and value:
        return {name: _changed(each, change, f"{key}.{name}" if key else str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_changed(each, change, key) for each in value]
    return change(key, value)


def _without_host(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_host(each) for key, each in value.items() if key != "host"}
    return [_without_host(each) for each in value] if isinstance(value, list) else value


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def user() -> str:
    """Whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return ""
