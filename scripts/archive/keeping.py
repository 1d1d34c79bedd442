"""Which runs are kept, and what of them: nothing that tells where or by whom they were made."""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

import yaml

from common import jsontext
from common.run import private, results
from common.run.folder import CONFIG, ENVIRONMENT, read_environment
from common.run.schema import TrackerConfig, flat, plain, schema_of
from common.tables.runs import Run
from scripts.archive.form import FILES, Packed, check


def packed_of(run: Run) -> Packed:
    """A finished run without what tells where it was made."""
    schema = schema_of(run.results.paper, run.config)
    settings = private.public_settings(run.config, schema)
    if "tracker" in settings:
        settings["tracker"] = plain(TrackerConfig())
    environment = private.public_environment(read_environment(run.folder), schema)
    found = jsontext.mapping((run.folder / results.RESULTS).read_bytes())
    found["hardware"] = {key: value for key, value in (found.get("hardware") or {}).items() if key != "host"}
    files = {name: (run.folder / name).read_bytes() for name in FILES if (run.folder / name).is_file()}
    files[CONFIG] = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()
    files[ENVIRONMENT] = (json.dumps(environment, indent=2) + "\n").encode()
    files[results.RESULTS] = (json.dumps(found, indent=2) + "\n").encode()
    place = PurePosixPath(run.results.paper, run.results.experiment, run.folder.name)
    return Packed(str(place), files)


def unfit(packed: Packed, run: Run) -> str:
    """Why a run cannot be kept: a file that is damaged or still says where it was made, or a key; empty: nothing."""
    hosts, user = [str(run.results.hardware.get("host") or "")], [private.user()]
    try:
        check(packed, run.results.paper)
        for where, value in packed.values():
            people = user if where in (CONFIG, ENVIRONMENT) else []  # elsewhere it may be any word
            if reason := private.telling(value, hosts, people):
                parts = flat(value) if isinstance(value, dict) else {}
                key = next((key for key, part in parts.items() if private.telling(part, hosts, people)), "a key")
                return f"{where}: {key} {reason}"
    except ValueError as error:
        return str(error)
    reason = private.telling(run.folder.name, hosts, user)
    return f"its folder {reason}" if reason else ""


def newest(runs: Sequence[Packed]) -> tuple[list[Packed], list[str]]:
    """Of runs with the same hash or the same place the one begun last, by place; and a line for each that differs from
    the run in its stead. Of runs begun together the last one of `runs` stays.
    """
    found: dict[str, Packed] = {}
    places: dict[str, str] = {}
    dropped = []
    for run in sorted(runs, key=lambda each: each.started):
        for old in {run.digest, places.get(run.place, run.digest)} & set(found):
            before = found.pop(old)
            del places[before.place]
            if before.files != run.files:
                dropped.append(f"{before.place}, begun {before.started or 'some time'}, by one begun {run.started}")
        found[run.digest] = run
        places[run.place] = run.digest
    return sorted(found.values(), key=lambda each: each.place), dropped
