"""Build the problems of the three splits, read or generated, check and count them, show one example and chance levels.

python -m perk.data +experiment=babilong_qa1 scale=cpu                           everything generated, no file
python -m perk.data +experiment=babilong_qa2 data=babilong_books data.root=...   real bAbI in real books
python -m perk.data +experiment=student_recall scale=cpu data.export=records     official files, no more
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.data import cache
from common.data.dataroot import check_all, find
from common.data.splits import SPLITS, build_digest, check_disjoint, content_digest
from common.errors import UserError
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.origin import of_records
from common.run.results import hashed_keys
from common.run.schema import plain, to_typed
from perk import jsonl
from perk.apis import build as apis
from perk.babilong import build as babilong
from perk.babilong.haystack import open_haystack
from perk.config import DataConfig, Task, TrainConfig
from perk.documents import build as documents
from perk.export import export
from perk.problems import Kept, Problem, keep
from perk.students import build as students
from perk.tokens import load as load_tokens

logger = logging.getLogger(__name__)
BUILDERS = {
    Task.babilong: babilong.build,
    Task.students: students.build,
    Task.documents: documents.build,
    Task.apis: apis.build,
    Task.jsonl: jsonl.build,
}
VERSION = 2
"""Of what is built here: `data.version` of every run that is trained."""
SAMPLE = 4
"""Problems of a split that enter its digest: making one of a long context takes a while."""
SOURCES = {
    "babi": "bAbI tasks v1.2 (tasks_1-20_v1-2)",
    "HuggingFaceFW": "the data set of that name on the hub, in the cache of datasets",
    "pg19": "PG-19 as plain text",
    "qa": "HotpotQA's files (hotpotqa.github.io)",
    "triviaqa": "TriviaQA's files (triviaqa-rc)",
    "apibench": "APIBench (ShishirPatil/gorilla)",
    "Qwen": "the tokenizer of that name on the hub",
}
"""First part of a name -> what to get."""
Splits = dict[str, Sequence[Problem]]

ConfigStore.instance().store(name="perk_schema", node=TrainConfig)  # each paper its own: tests load several


def load(config: DataConfig) -> Splits:
    """The problems of train, dev and test. Without a cache each is built when it is asked for, so a split of any size
    takes no memory; with one all are built once, checked and kept, and read from there when asked for.

    Raises:
        UserError: missing root or file, malformed content, an empty split, or something that two splits share.
    """
    if config.version != VERSION:
        logger.warning(
            "data.version=%d: built by version %d, so these are not the same problems", config.version, VERSION
        )
    folder = _cache_folder(config)
    if folder is not None and cache.is_whole(folder):
        return {split: Kept(cache.file_of(folder, split)) for split in SPLITS}
    require(config)
    splits: Splits = dict(BUILDERS[config.task](config, load_tokens(config.tokenizer, config.root)))
    if folder is not None:
        logger.info("building %d problems", sum(map(len, splits.values())))
        with cache.writing(folder):
            splits = {split: keep(cache.file_of(folder, split), splits[split]) for split in SPLITS}
            check(splits)
    return splits


def digests(config: DataConfig, splits: Splits) -> dict[str, str]:
    """Split -> digest of its files, and of `SAMPLE` of its problems for what is generated or comes from a hub: a run is
    continued with the same ones only."""
    own, files = plain(config.files), {name: content_digest(path) for name, path in _files(config).items()}
    shared = {name: digest for name, digest in files.items() if name not in own.values()}
    found = {}
    for split, problems in splits.items():
        read = {"files": shared, "own": files.get(own.get(split) or own.get("train")), "count": len(problems)}
        places = sorted({round(part * (len(problems) - 1) / (SAMPLE - 1)) for part in range(SAMPLE)})
        found[split] = of_records([read, *(asdict(problems[place]) for place in places)])
    return found


def check_version(config: DataConfig) -> None:
    """Refuse to train what would be taken for a run on other problems.

    Raises:
        UserError: the settings are of another version than this one builds.
    """
    if config.version != VERSION:
        raise UserError(
            f"data.version={config.version}: this version builds {VERSION}; leave it out, or go back to the code that "
            "built those"
        )


def require(config: DataConfig) -> None:
    """See that the files, folders and hub names of the settings are there, so that what is missing is said at once.

    Raises:
        UserError: several things are missing.
    """
    names = [name for name in _named(config) if not _at_hand(config, name)]
    sources = dict.fromkeys(SOURCES[first] for name in names if (first := name.split("/")[0]) in SOURCES)
    get = f"get {' and '.join(sources)}, or " if sources else ""
    keys = {config.tokenizer: "data.tokenizer", str(config.babilong.haystack.source): "data.babilong.haystack.source"}
    check_all(config.root, names, f"{get}generate everything (scale=cpu, on two cores)", keys)


def _at_hand(config: DataConfig, name: str) -> bool:
    """Is a hub name in the cache? Of others the root decides."""
    try:
        if name == config.tokenizer:
            load_tokens(name, config.root)
        elif name == config.babilong.haystack.source:
            open_haystack(config.babilong.haystack, config.root, config.seed)
        else:
            return False
    except UserError:
        return False
    return True


def check(splits: Splits) -> None:
    """Go through every problem and see that no two splits share anything.

    Raises:
        UserError: they do; or a problem cannot be built.
    """
    names = {
        split: {key: problem.id for problem in problems for key in problem.sources}
        for split, problems in splits.items()
    }
    check_disjoint({split: set(found) for split, found in names.items()}, "things", names)


def _cache_folder(config: DataConfig) -> Path | None:
    """Where the built splits lie: named by everything that decides them."""
    if config.cache is None:
        return None
    parts = {task.value for task in Task if task is not config.task}
    keys = {
        key: value
        for key, value in hashed_keys(plain(config), DataConfig).items()
        if key.split(".")[0] not in {*parts, "templates"}
    }
    return Path(config.cache) / f"{config.name}-{build_digest(keys, _files(config), 'perk')}"


def _files(config: DataConfig) -> dict[str, Path]:
    """Name -> file or folder that decides the problems, of those that are at hand."""
    files = {}
    for name in _named(config):
        try:
            files[name] = find(config.root, name, "generate everything: data.files.train=null")
        except UserError:  # a data set of the hub, or missing: whoever reads it will say so
            continue
    return files


def _named(config: DataConfig) -> Iterator[str]:
    """Files and folders that decide the problems."""
    names = [*plain(config.files).values(), config.tokenizer if config.tokenizer != "words" else None]
    if config.task is Task.babilong:
        names.append(config.babilong.haystack.source)
    if config.task is Task.documents:
        names += [config.documents.pool, config.documents.evidence]
    yield from filter(None, names)


@entry("pkg://conf.perk")
def main(cfg: DictConfig) -> None:
    """Print what the data are; with `data.export` only write them, which takes any number of problems."""
    from perk.preview import show

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    if config.data.export is not None:
        for path, count in export(config.data, load_tokens(config.data.tokenizer, config.data.root)):
            logger.info("%s: %d", path, count)
        return
    splits = load(config.data)
    if config.data.cache is None:
        check(splits)
    show(splits, config)


if __name__ == "__main__":
    main()
