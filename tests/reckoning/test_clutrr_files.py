"""Kinship stories from files: the original text files, the CSV sets, and both through the configuration."""

import csv
import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

from common.data.textfile import read_csv
from common.errors import UserError
from common.run.schema import to_typed
from reckoning import data, train
from reckoning.audit import audit
from reckoning.clutrr.noise import passages_of
from reckoning.clutrr.rows import path_of, read_rows
from reckoning.clutrr.text import read_text
from reckoning.config import SPLITS, TrainConfig
from reckoning.problems import Problem, Question
from reckoning.shortcut_rows import labels_of
from tests.reckoning.families import endings
from tests.runs import run_here

LINE = (
    "<STORY> ent_3 is ent_7 's son . ent_12 has a brother named ent_7 . <QUERY> Who is ent_3 to ent_12 ? "
    "<PROOF> Since ent_3 is a son to ent_7 , then done . <ANSWER> ent_3 is the nephew of ent_12 . "
)
ROW = {
    "id": "a", "story": "", "query": "('Ann', 'Carl')", "target": "nephew", "task_name": "task_1.2",
    "clean_story": "[Ann] met her brother. His name is [Bob]. [Bob] took his son [Carl] [Carl] and [Bob] left.",
    "f_comb": "brother-son", "edge_types": "['brother', 'son']",
}  # fmt: skip


def config_of(*overrides: str) -> TrainConfig:
    with initialize_config_module("conf.reckoning", version_base="1.3"):
        return to_typed(compose("config", overrides=["+experiment=clutrr", *overrides]), TrainConfig)


def write_rows(path: Path, *rows: dict[str, str]) -> Path:
    with lzma.open(path, "wt", newline="") if path.suffix == ".xz" else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---- the original files


def test_a_line_becomes_a_story_with_all_its_sentences_relevant(tmp_path: Path) -> None:
    (tmp_path / "long.txt.4000").write_text(LINE + "\n")
    (read,) = read_text(tmp_path / "long.txt.4000", hops=2)
    assert read.facts == ("person 3 is person 7's son", "person 12 has a brother named person 7")
    question = Question("long:1", "Who is person 3 to person 12?", "nephew", (0, 1), 2)
    assert read.questions == (question,) and read.kinds == ()
    short = LINE.replace("ent_3 is the nephew of ent_12 .", "nephew")
    swapped = short.replace("<PROOF>", "<ANSWER> nephew <PROOF>").rsplit("<ANSWER>", 1)[0]
    (tmp_path / "short.txt").write_text(f"{short}\n\n{swapped}\n")
    assert [(p.facts, p.questions[0].answer) for p in read_text(tmp_path / "short.txt")] == [(read.facts, "nephew")] * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<QUERY>", "", "the markers are <STORY> <PROOF> <ANSWER>; each line is <STORY> "),
        ("<STORY>", "Once <STORY>", "the markers are <STORY> <QUERY> <PROOF> <ANSWER>"),
        ("<PROOF>", "<QUERY>", "the markers are <STORY> <QUERY> <QUERY> <ANSWER>"),
        ("<STORY>", "<STORY> ent_1 is ent_3 's son .", "a story of 3 sentences in a file of 2 hops"),
        (LINE[len("<STORY>") : LINE.index("<QUERY>")], " . ", "the story is empty"),
        ("Who is ent_3 to ent_12 ?", "", "the query is empty"),
        ("nephew", "cousin", "0 kinship words in the answer 'person 3 is the cousin of person 12.'"),
        ("nephew", "nephew and uncle", "2 kinship words in the answer"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "test.txt").write_text(f"{LINE}\n{LINE.replace(old, new)}\n")
    with pytest.raises(UserError, match=rf"test\.txt:2: {message}"):
        read_text(tmp_path / "test.txt", hops=2)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A root with the layout of the original data: two training stories, one of which the 2-hop test has too."""
    forward = tmp_path / "clutrr" / "forward"
    other = LINE.replace("ent_3", "ent_4")
    third = "ent_12 is the father of ent_1 . <QUERY>"
    files = {
        "train/long_proof_1.2_train_facts_anon.txt.4000": [LINE, other],
        "valid/long_proof_1.2_valid_facts_anon.txt.4000": [
            LINE.replace("ent_3", "ent_5"),
            LINE.replace("ent_3", "ent_6"),
        ],
        "test/2/long_proof_1.2_test_facts_ANON.txt": [other, other.replace("ent_12", "ent_13")],
        "test/3/long_proof_1.3_test_facts_ANON.txt": [LINE.replace("<QUERY>", third)],
    }
    for name, lines in files.items():
        (forward / name).parent.mkdir(parents=True, exist_ok=True)
        (forward / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_original_layout_is_read_and_train_has_no_story_of_the_test(
    original: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        splits = data.load(config_of(f"data.root={original}", "data.clutrr.test_hops=[2,3]", "data.cache=null").data)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 1, "dev": 2, "test": 3}
    assert "1 train stories are left out, as a later split has them too" in caplog.text
    assert [p.questions[0].depth for p in splits["test"]] == [2, 3, 2], "hops in turn, so that a limit keeps them all"
    for problem in (p for problems in splits.values() for p in problems):
        recited = [problem.facts[index] for index in problem.questions[0].relevant]
        assert recited[0].endswith("person 7's son") and recited[1].endswith("has a brother named person 7")
    limited = data.load(
        config_of(
            f"data.root={original}/clutrr",
            "data.clutrr.test_hops=[2,3]",
            "data.limit={test: 2}",
            f"data.cache={original}/kept",
        ).data
    )
    assert [p.questions[0].depth for p in limited["test"]] == [2, 3]
    assert [path.name[:13] for path in (original / "kept").iterdir()] == ["clutrr_2_hop-"]


def test_a_missing_original_file_is_named(original: Path) -> None:
    for words in (["data.hops=4"], []):  # the 4-hop training file, then the 4-hop test file
        with pytest.raises(UserError, match=r"data\.root=.*long_proof_1\.4_(train|test)_facts"):
            data.load(config_of(f"data.root={original}", "data.cache=null", *words).data)
    with pytest.raises(UserError, match=r"data\.distractors=2 with data\.format=clutrr_text: the files have none"):
        config_of("data.distractors='2'")


# ---- the CSV sets


def test_a_row_becomes_a_story_without_brackets(tmp_path: Path) -> None:
    row = ROW | {"target": "neice", "edge_types": "['brother', 'daughter']", "f_comb": "brother-daughter"}
    nephew, niece = read_rows(write_rows(tmp_path / "1.2_test.csv.xz", ROW, row))
    assert nephew.facts == ("Ann met her brother. His name is Bob", "Bob took his son Carl", "Carl and Bob left")
    assert nephew.questions == (Question("1.2_test:2", "how is Carl related to Ann?", "nephew", (0, 1, 2), 2),)
    assert (niece.questions[0].answer, niece.theory) == ("niece", nephew.theory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "uncle"}, "target='uncle' is no composition of brother-son"),
        ({"edge_types": "['brother', 'cousin']"}, "edge_types: 'cousin' is no kinship word"),
        ({"edge_types": "brother"}, "edge_types='brother' cannot be read; a list of words is needed"),
        ({"task_name": "task_1.3"}, "task_name='task_1.3' for 2 edge_types"),
        ({"f_comb": "son-brother"}, "f_comb='son-brother' is not edge_types="),
        ({"query": "('Ann',)"}, r"query=.* does not name two persons"),
        ({"query": "Ann, Carl"}, r"query='Ann, Carl' cannot be read; a tuple of words"),
        ({"clean_story": " "}, "clean_story is empty"),
        ({"task_name": "1.2"}, "task_name='1.2' is no task"),
        ({"task_name": "task_3.2", "story": "[Ann] met [Bob]."}, "clean_story is no part of story"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = write_rows(tmp_path / "1.2_test.csv", ROW, ROW | change)
    with pytest.raises(UserError, match=rf"1\.2_test\.csv:3: {message}"):
        read_rows(path)


NOISE = ROW | {
    "task_name": "task_3.2",
    "clean_story": "[Ann] met her brother [Bob] [Bob] took his son [Carl] out.",
    "story": "[Dora] has an aunt. Her name is [Ann]. [Bob] took his son [Carl] out. [Ann] met her brother [Bob] "
    "[Carl] ran after [Dora].",
}  # fmt: skip


def test_a_story_with_noise_is_read_as_told_and_the_clean_story_says_what_is_relevant(tmp_path: Path) -> None:
    (problem,) = read_rows(write_rows(tmp_path / "3.2_test.csv", NOISE))
    assert problem.facts == (
        "Dora has an aunt. Her name is Ann",
        "Bob took his son Carl out",
        "Ann met her brother Bob",
        "Carl ran after Dora",
    )
    assert problem.questions[0].relevant == (2, 1), "along the chain"


@pytest.mark.parametrize(
    ("order", "facts"),
    [("relevant_first", (1, 2, 0, 3)), ("distractors_first", (0, 3, 1, 2)), ("shuffled", None)],
)
def test_a_training_set_with_noise_keeps_it_in_every_order(
    tmp_path: Path, order: str, facts: tuple[int, ...] | None
) -> None:
    folder = tmp_path / "clutrr" / "noisy"
    folder.mkdir(parents=True)
    names = [NOISE | {k: v.replace("Carl", f"C{n}") for k, v in NOISE.items() if k in ("story", "clean_story", "query")}
             for n in range(20)]  # fmt: skip
    write_rows(folder / "3.2,3.3_train.csv", *names)
    for kind, row in (("1", ROW), ("3", NOISE), ("4", NOISE | {"task_name": "task_4.2"})):
        write_rows(folder / f"{kind}.2_test.csv", row | {"query": row["query"]})
    words = ["data=clutrr_csv", "data.clutrr.set=noisy", f"data.root={tmp_path}", "data.cache=null"]
    test = "data.files.test='clutrr/noisy/3.{hops}_test*.csv*'"
    (read,) = read_rows(write_rows(tmp_path / "one.csv", NOISE))
    splits = data.load(config_of("scale=cpu", *words, test, f"data.order={order}").data)
    (tested,) = splits["test"]
    assert all(len(problem.facts) == 4 and len(problem.questions[0].relevant) == 2 for problem in splits["train"])
    assert sorted(tested.facts) == sorted(read.facts)
    assert [tested.facts[place] for place in tested.questions[0].relevant] == [read.facts[2], read.facts[1]]
    if facts:
        assert tested.facts == tuple(read.facts[place] for place in facts)


def test_files_with_noise_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "clutrr" / "noisy"
    folder.mkdir(parents=True)
    write_rows(
        folder / "1.2_train.csv",
        *[ROW | {"clean_story": ROW["clean_story"].replace("Ann", f"A{n}")} for n in range(20)],
    )
    write_rows(folder / "1.2_test.csv", ROW)
    write_rows(folder / "2.2_test.csv", NOISE | {"task_name": "task_2.2"})
    words = ["data=clutrr_csv", "data.clutrr.set=noisy", f"data.root={tmp_path}", "data.cache=null"]
    data.load(config_of("scale=cpu", *words).data)
    assert "test split reads tasks 1.k alone" in caplog.text
    assert "data.files.test='clutrr/noisy/2.{hops}_test*.csv*'" in caplog.text


def test_the_release_with_numbered_targets_is_read_and_a_mixed_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row | {"target": "14", "target_text": "nephew"} for row in (ROW, NOISE)]
    clean, noisy = read_rows(write_rows(tmp_path / "test.csv", *rows))
    assert [problem.questions[0].answer for problem in (clean, noisy)] == ["nephew", "nephew"]
    assert "test.csv: rows with and without noise are one set: 1 of tasks 1.k, 1 of tasks 3.k" in caplog.text


def test_stories_of_the_shared_sets_are_their_clean_stories_in_another_order(data_root: Path) -> None:
    for path in sorted((data_root / "clutrr" / "sg_db9b8f04").glob("*_test_part.csv*")):
        for _, row in read_csv(path):
            passages = passages_of(row["story"], row["clean_story"])
            assert passages is not None and all(place is not None for _, place in passages)


def test_a_missing_column_and_missing_hops_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", {key: value for key, value in ROW.items() if key != "query"})
    with pytest.raises(UserError, match=r"a\.csv:2: no column 'query', found"):
        read_rows(path)
    with pytest.raises(UserError, match=r"b\.csv: no row of 3 hops, but of \[2\]; set data\.hops to one of these"):
        read_rows(write_rows(tmp_path / "b.csv", ROW), hops=3)


COUNTS = {"sg_089907f8": (10_094, 575), "sg_db9b8f04": (15_083, 527), "template_ab2918c7": (2_685, 5_051)}
TWO_SIDED = {"sg_089907f8": (106, 8), "sg_db9b8f04": (209, 14), "template_ab2918c7": (30, 40)}
"""Rows of train and test whose relations leave two sides of a family open, by the shared table itself."""


@pytest.mark.parametrize("name", COUNTS)
def test_the_shared_sets_are_read_completely_and_every_target_is_its_edges_composed(data_root: Path, name: str) -> None:
    pairs = yaml.safe_load((data_root / "clutrr" / "composition_table.json").read_text())
    table = {tuple(pair.split(",")): word for pair, word in pairs.items()}
    sizes, sided = [], []
    known: dict[tuple[str, ...], set[str]] = {}
    for pattern in ("*_train.csv*", "*_test_part.csv*"):
        paths = sorted((data_root / "clutrr" / name).glob(pattern))
        problems = [problem for path in paths for problem in read_rows(path)]
        rows = [(row, path_of(row, "")) for path in paths for _, row in read_csv(path)]
        sizes.append(len(problems))
        sided.append(0)
        for problem, (row, path) in zip(problems, rows, strict=True):
            question = problem.questions[0]
            if tuple(path) not in known:
                known[tuple(path)] = endings(path, table)  # type: ignore[arg-type]
            found = known[tuple(path)]
            assert question.answer in found and question.answer in (row["target"], "niece")
            sided[-1] += len(found) > 1
            assert not {"[", "]"} & set(" ".join((*problem.facts, question.text)))
            if name.startswith("template"):
                assert len(problem.facts) == question.depth == len(question.relevant)
    assert (tuple(sizes), tuple(sided)) == (COUNTS[name], TWO_SIDED[name])


@pytest.mark.parametrize(
    ("name", "hops", "test"),
    [("sg_089907f8", "null", 575), ("sg_db9b8f04", "4", 527), ("template_ab2918c7", "3", 5_051)],
)
def test_the_shared_sets_load_through_the_configuration(
    data_root: Path, caplog: pytest.LogCaptureFixture, name: str, hops: str, test: int
) -> None:
    words = ["data=clutrr_csv", f"data.clutrr.set={name}", f"data.hops={hops}", f"data.root={data_root}"]
    with caplog.at_level("INFO"):
        splits = data.load(config_of("scale=cpu", *words, "data.cache=null").data)
    assert len(splits["test"]) == test
    depths = {split: {p.questions[0].depth for p in problems} for split, problems in splits.items()}
    there = set(range(3, 10)) if name.startswith("template") else set(range(2, 11))
    assert depths["test"] == there
    assert depths["train"] == depths["dev"] == ({2, 3} if hops == "null" else {int(hops)})
    assert ("no test file of 2, 10 hops" in caplog.text) == name.startswith("template")
    stories = {split: {p.theory for p in problems} for split, problems in splits.items()}
    assert not stories["train"] & stories["test"] and not stories["dev"] & stories["test"]
    assert all(sorted(p.questions[0].relevant) == list(range(len(p.facts))) for p in splits["train"])


# ---- through the configuration


@pytest.mark.parametrize(
    ("words", "name", "steps"),
    [
        ([], "clutrr_2_hop", 4),
        (["data.hops=6"], "clutrr_6_hop", 5),
        (["scale=cpu"], "clutrr_2_hop_generated", 1),
        (["scale=cpu", "data.hops=6"], "clutrr_6_hop_generated", 1),
        (["scale=cpu", "data.hops=6", "inner.steps=2"], "clutrr_6_hop_generated", 2),
        (["scale=cpu", "data=clutrr_csv"], "clutrr_sg_089907f8", 1),
        (["scale=cpu", "data=clutrr_paper"], "clutrr_2_hop", 1),
        (["data=natlang"], "owa_natlang", 4),
    ],
)
def test_the_scale_chooses_the_data_and_the_hops_the_steps(words: list[str], name: str, steps: int) -> None:
    config = config_of(*words)
    assert (config.data.name, config.inner.steps) == (name, steps)
    asks = "{question}?" if name == "owa_natlang" else "{references}, {question}"
    assert config.data.templates.question.endswith(asks)


def made(*words: str) -> dict[str, list[Problem]]:
    return data.load(config_of("scale=cpu", "data.cache=null", *words).data)


def test_shortcuts_for_kinship_are_tried_and_none_is_enough() -> None:
    splits = made("data.theories={train:400,dev:4,test:90}")
    labels = labels_of(splits, config_of("scale=cpu"))
    results = {rule.name: rule for rule in audit(splits["train"], splits["test"], labels, seed=0)}
    assert results["chance"].accuracy == pytest.approx(1 / 18)
    assert results["majority"].accuracy < 0.1
    depths = [problem.questions[0].depth for problem in splits["test"]]

    def right(rule: str, hops: range) -> float:
        hits = [
            said == problem.questions[0].answer
            for said, problem, depth in zip(results[rule].predictions, splits["test"], depths, strict=True)
            if depth in hops
        ]
        return sum(hits) / len(hits)

    assert right("ends_of_the_chain", range(2, 3)) == 1.0, "at two facts that is the composition itself"
    for rule in ("last_relation", "gender", "first_relation", "relation_words", "bag_of_words"):
        assert right(rule, range(3, 11)) < 0.5, rule
    assert 0.05 < results["gender"].accuracy < 0.2
    assert max(right(rule, range(7, 11)) for rule in results) < 0.6


def test_shortcut_rules_run_as_a_method_and_labels_may_be_new_in_the_test(tmp_path: Path) -> None:
    words = ["+experiment=clutrr", "scale=cpu", "method=shortcuts", "data.theories={train:12,dev:2,test:36}"]
    assert run_here(train.main, *words, f"loop.root={tmp_path}") == 0
    results = yaml.safe_load(next(tmp_path.rglob("results.json")).read_text())["test"]
    assert 0 < results["accuracy_chance"]["value"] < 1 / 12, "uniform over the twelve labels that train has"
    assert {"accuracy_last_relation", "accuracy_relation_words", "accuracy_bag_of_words"} <= results.keys()


def test_the_preview_shows_stories_and_shortcuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["+experiment=clutrr", "scale=cpu", "data.theories={train:40,dev:4,test:18}", f"loop.root={tmp_path}"]
    assert run_here(data.main, *words) == 0
    out = capsys.readouterr().out
    for part in ("depth 10", "Inner loop: 2 rows", " related to person ", "because", "last_relation", "chance"):
        assert part in out, part
    assert "uncle %" not in out and "The best by depth" in out, "18 labels get no column each"


def test_a_run_reports_an_accuracy_per_number_of_hops(tmp_path: Path) -> None:
    words: list[Any] = ["outer.steps=2", "outer.batch_problems=2", "loop.log_every=1", "evaluation.max_new_tokens=4"]
    sizes = ["data.theories={train:20,dev:2,test:9}", "data.cache=null"]
    assert run_here(train.main, "+experiment=clutrr", "scale=cpu", *words, *sizes, f"loop.root={tmp_path}") == 0
    results = yaml.safe_load(next(tmp_path.rglob("results.json")).read_text())["test"]
    assert {f"accuracy@depth_{hops}" for hops in range(2, 11)} <= results.keys()
    assert all(results[f"accuracy@depth_{hops}"]["count"] == 1 for hops in range(2, 11))
    assert set(SPLITS) == {"train", "dev", "test"}
