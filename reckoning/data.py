"""Build the problems of the three splits, read or generated, check and count them, show one example with its scored
tokens, and audit shortcuts.

    python -m reckoning.data +experiment=proofwriter data=jsonl data.files.train=my.jsonl     own data
    python -m reckoning.data +experiment=proofwriter scale=cpu data.export=theories           official files, no more
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.data import cache, dataroot
from common.data.given import Spellings
from common.data.splits import build_digest, check_disjoint, shares_of
from common.data.textfile import read_json_lines
from common.errors import UserError
from common.run.entry import entry
from common.run.files import remove_if_empty, write_json_lines
from common.run.origin import of_records
from common.run.results import hashed_keys
from common.run.schema import plain, to_typed
from reckoning.choices import annotations_beside, read_choices
from reckoning.clutrr import splits as clutrr
from reckoning.config import SPLITS, DataConfig, Format, TrainConfig, Variant
from reckoning.folio import check_release, read_folio
from reckoning.metrics import normalise
from reckoning.pararule import read_pararule
from reckoning.problems import (
    Answers,
    Problem,
    group_questions,
    problem_from_json,
    problem_to_json,
    read_jsonl,
    shuffled_copies,
    split_by_key,
)
from reckoning.prontoqa import read_prontoqa
from reckoning.proofwriter.generator import generate
from reckoning.proofwriter.recipe import Record, check_published_counts, problems_of, read_records, split_by_theory
from reckoning.proofwriter.repaired import repaired

logger = logging.getLogger(__name__)
SOURCES = {
    "proofwriter": "the ProofWriter release V2020.12.3 from the Allen Institute for AI",
    "folio": "FOLIO v0.0 (data/v0.0 of Yale-LILY/FOLIO)",
    "prontoqa": "ProntoQA as multiple choice (data/ProntoQA/dev.json of teacherpeterpan/Logic-LLM, one a line)",
    "pararule_plus": "PARARULE-Plus (Strong-AI-Lab/PARARULE-Plus)",
    "clutrr": "the CLUTRR-SG files of NicolasAG/SGinPG (forward/train, valid, test) or a CSV set of CLUTRR's generator",
}
"""First folder of a file below the data root -> what to get."""
Splits = dict[str, list[Problem]]

ConfigStore.instance().store(name="schema", node=TrainConfig)


def load(config: DataConfig) -> Splits:
    """The problems of train, dev and test, from the cache where they were built before.

    Raises:
        UserError: missing root or file, malformed content, an empty split, or theories shared between splits.
    """
    _require(config)
    cached = _cache_folder(config)
    if cached is not None and cache.is_whole(cached):
        return {
            split: [problem_from_json(value) for _, value in read_json_lines(cache.file_of(cached, split))]
            for split in SPLITS
        }
    _check_labels(config)
    splits = _build(config)
    for split, problems in splits.items():
        limit = config.limit.get(split, 0)
        splits[split] = problems[:limit] if limit else problems
        if not splits[split]:
            raise UserError(f"data.name={config.name}: no problem is left in the {split} split; {_why(config, split)}")
    _check_disjoint(splits)
    splits["train"] = shuffled_copies(splits["train"], config.copies, config.seed)
    if cached is not None:
        with cache.writing(cached):
            for split in SPLITS:
                write_json_lines(cache.file_of(cached, split), map(problem_to_json, splits[split]))
    return splits


def digests(splits: Splits) -> dict[str, str]:
    """Split -> digest of its problems: a run is continued with the same ones only."""
    return {split: of_records(map(problem_to_json, problems)) for split, problems in splits.items()}


def _why(config: DataConfig, split: str) -> str:
    """Why a split is empty, and what to do."""
    if config.format is Format.generated:
        return "use more theories, another data.variant, or data.balance=false"
    if config.format is not Format.proofwriter:
        return f"give a larger file as data.files.{split}, or leave it null to cut the train file"
    name = plain(config.files)[split] or plain(config.files)["train"]
    answers = Counter(
        str(question["answer"]).lower()
        for record in read_records(find(config.root, name))
        for question in record["questions"].values()
    )
    counts = ", ".join(f"{count} {answer}" for answer, count in answers.most_common())
    if not answers["unknown"] and (config.balance or config.variant is Variant.repaired):
        return (
            f"{name} has no question that is answered unknown ({counts}: a closed world), and the recipe takes as "
            "many of each answer; take a file of the open world (OWA), or set data.variant=published data.balance=false"
        )
    return f"{name} has the answers {counts}; use a larger file, another data.variant, or data.balance=false"


def _require(config: DataConfig) -> None:
    """See that the files of the settings are there, so that all that are missing are said at once.

    Raises:
        UserError: several are missing.
    """
    if config.format.made:
        return
    names = [name for name in (*plain(config.files).values(), *plain(config.support).values()) if name]
    if config.format is Format.clutrr_text:
        names = clutrr.names(config)
    dataroot.check_all(config.root, (name for name in names if clutrr.HOPS not in name), _remedy(names))


def _remedy(names: Sequence[str]) -> str:
    sources = dict.fromkeys(source for name in names if (source := SOURCES.get(Path(name).parts[0])))
    get = f"get {' and '.join(sources)}, or " if sources else ""
    return f"{get}run on generated data: data=generated (on two cores with scale=cpu)"


def find(root: str | None, name: str) -> Path:
    """The file `name` below the data root, as `common.data.dataroot.find`; what is missing is named with where to get
    it.

    Raises:
        UserError: no root is known, or the file is not there.
    """
    return dataroot.find(root, name, _remedy([name]))


def _cache_folder(config: DataConfig) -> Path | None:
    """Where the built splits lie: named by everything that decides them."""
    if config.cache is None:
        return None
    counting = hashed_keys(plain(config), DataConfig)
    keys = {key: value for key, value in counting.items() if not key.startswith("templates.")}
    names = [name for name in (*plain(config.files).values(), *plain(config.support).values()) if name]
    found = {name: find(config.root, name) for name in names if clutrr.HOPS not in name}
    found |= {path.name: path for path in clutrr.files(config, find)}
    return Path(config.cache) / f"{config.name}-{build_digest(keys, found, 'reckoning')}"


def _build(config: DataConfig) -> Splits:
    if config.format is Format.generated:
        return {split: _from_records(config, split, _generated(config, split)) for split in SPLITS}
    if config.format is Format.clutrr:
        return {split: clutrr.made(config, split) for split in SPLITS}
    files = plain(config.files)
    if files["train"] is None:
        raise UserError(f"data.files.train is null with data.format={config.format}; name the file to train on")
    missing = [split for split in SPLITS if files[split] is None]
    shares = shares_of(config.shares, missing)
    if config.format is Format.proofwriter:
        return _from_release(config, files, missing, shares)
    answers, told = Spellings(normalise), Answers()
    read = {split: _read_problems(config, split, answers, told) for split in SPLITS if files[split] is not None}
    answers.tell("answer")
    _tell_of_two_answers(config, read)
    if config.format is Format.folio and config.check_counts:
        for split, problems in read.items():
            check_release(split, problems)
    if missing:
        train = read["train"]
        read |= split_by_key(train, [problem.theory for problem in train], shares, config.seed)
    if config.format in (Format.clutrr_text, Format.clutrr_csv):
        read = clutrr.without_shared(read)
    return {split: group_questions(read[split], config.questions_per_set) for split in SPLITS}


def _generated(config: DataConfig, split: str) -> Iterator[Record]:
    if config.theories.get(split, 0) < 1:
        raise UserError(f"data.theories.{split}={config.theories.get(split)}: at least one theory is needed")
    depths = [*config.generator.depths, *(config.curriculum if split == "train" else [])]
    if split == "test" and config.test_hops not in (None, config.hops):
        depths = [config.test_hops]
    generator = replace(config.generator, depths=depths)
    return (generate(generator, config.seed, split, index) for index in range(config.theories[split]))


def _from_release(
    config: DataConfig, files: dict[str, str | None], missing: list[str], shares: dict[str, float]
) -> Splits:
    records = {split: list(read_records(find(config.root, name))) for split, name in files.items() if name}
    if missing:
        records |= split_by_theory(records["train"], shares, config.seed)
    splits = {split: _from_records(config, split, records[split]) for split in SPLITS}
    if config.check_counts and config.hops is not None:
        for split, hops in zip(SPLITS, (config.hops, config.hops, config.test_hops or config.hops), strict=True):
            examples = sum(len(problem.questions) for problem in splits[split])
            check_published_counts(hops, split, theories=len(records[split]), examples=examples)
    return splits


def _from_records(config: DataConfig, split: str, records: Iterator[Record] | list[Record]) -> list[Problem]:
    problems: list[Problem] = []
    for index, record in enumerate(records):
        rng = random.Random(f"{config.seed}/{split}/{index}/problems")
        if config.variant is Variant.repaired:
            problems += repaired(record, rng, distractors=config.distractors)
        else:
            problems += problems_of(
                record,
                alternative=config.alternative.value,
                distractors=config.distractors,  # type: ignore[arg-type]
                order=config.order.value,
                rng=rng,
                balance=config.balance,
            )
    return group_questions(problems, config.questions_per_set)


READERS = {Format.folio: read_folio, Format.prontoqa: read_prontoqa, Format.pararule_plus: read_pararule}


def _read_problems(config: DataConfig, split: str, answers: Spellings, told: Answers) -> list[Problem]:
    if config.format in (Format.clutrr_text, Format.clutrr_csv):
        return clutrr.read(config, split, find)
    path = find(config.root, plain(config.files)[split])
    if config.format is Format.jsonl:
        return read_jsonl(path, config.labels, answers=answers, told=told)
    if config.format in READERS:
        return READERS[config.format](path, config.labels)
    named = plain(config.support)[split]
    return read_choices(path, find(config.root, named) if named else annotations_beside(path), config.labels)


def _tell_of_two_answers(config: DataConfig, read: Splits) -> None:
    """Published files may say two things of one question; they are read as they are."""
    told = Answers()
    found = [
        (problem.id, *differing)
        for problems in read.values()
        for problem in problems
        if (differing := told.differing(problem, problem.id))
    ]
    if found:
        name, question, answer, place = found[0]
        logger.warning(
            "%s: %d questions have two answers from the same facts, such as %r: %r in %s, %r in %s",
            config.name, len(found), question.text, answer, place, question.answer, name,
        )  # fmt: skip


def _check_labels(config: DataConfig) -> None:
    """See that scoring can tell the answer words of different labels apart."""
    words = Spellings(normalise)
    for label, word in (config.labels or {}).items():
        if (first := words.one(word, label)) != word:
            raise UserError(
                f"data.labels: {word!r} (of {label!r}) and {first!r} are one word for scoring; write both alike, or "
                "another word"
            )


def _check_disjoint(splits: Splits) -> None:
    names = {split: {problem.theory: problem.id for problem in problems} for split, problems in splits.items()}
    check_disjoint({split: set(theories) for split, theories in names.items()}, "theories", names)


def export(config: DataConfig) -> list[Path]:
    """Write the generated theories of every split as an official file, `<data.export>/meta-<split>.jsonl`.

    One theory at a time is in memory.

    Raises:
        UserError: the data is not generated, or the folder cannot be written to.
    """
    if config.export is None:
        return []
    if config.format is not Format.generated:
        raise UserError(
            f"data.export={config.export} with data.format={config.format}: only generated theories are written; "
            "leave data.export out, or set data=generated"
        )
    paths = []
    for split in SPLITS:
        paths.append(Path(config.export).expanduser() / f"meta-{split}.jsonl")
        try:
            write_json_lines(paths[-1], _generated(config, split))
        except OSError as error:
            raise UserError(f"data.export={config.export}: {error.strerror}; name another folder") from error
        logger.info("%s: %d theories", paths[-1], config.theories[split])
    return paths


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> None:
    """Print what the data are; with `data.export` only write them, which takes any number of theories."""
    from reckoning.preview import show

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    if files := export(config.data):
        names = ",".join(f"{split}:{path.name}" for split, path in zip(SPLITS, files, strict=True))
        folder = config.data.export
        logger.info("read them like real ones: data=natlang data.root=%s 'data.files={%s}'", folder, names)
        return
    show(load(config.data), config)


if __name__ == "__main__":
    main()
