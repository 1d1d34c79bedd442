"""bAbI's format, and worlds of our own: an independent solver agrees with every answer."""

from pathlib import Path

import pytest

from common.errors import UserError
from perk.babilong.config import FILES, WorldConfig
from perk.babilong.simulator import FACTS, tell
from perk.babilong.stories import Asked, Story, lines_of, read_stories
from perk.babilong.vocabulary import labels_of
from tests.perk.babi_solver import solve

STORY = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary went to the office.
5 Where is Mary?\toffice\t4
1 John went to the kitchen.
2 Where is John?\tkitchen\t1
"""


def test_a_file_is_read_into_stories_and_questions(tmp_path: Path) -> None:
    path = tmp_path / "qa1.txt"
    path.write_text(STORY)
    first, second = read_stories(path)
    assert first.facts == ("Mary moved to the bathroom.", "John went to the hallway.", "Mary went to the office.")
    assert first.asked == (Asked("Where is Mary?", "bathroom", (0,), 2), Asked("Where is Mary?", "office", (2,), 3))
    assert second == Story(("John went to the kitchen.",), (Asked("Where is John?", "kitchen", (0,), 1),))
    path.write_text("\n".join([*lines_of(first), *lines_of(second)]))
    assert read_stories(path) == [first, second]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("Mary moved.\n", 1, "does not begin with an ID"),
        ("1 Mary moved.\n3 John left.\n", 2, "ID 3 follows ID 1"),
        ("2 Mary moved.\n", 1, "ID 2 follows ID 0"),
        ("1 A.\n2 Where is A?\tx\n", 2, "three parts"),
        ("1 A.\n2 Where is A?\tx\t7\n", 2, "supporting ID '7'"),
        ("1 A.\n2 Where is A?\tx\t1\n3 Where is A?\tx\t2\n", 3, "supporting ID '2'"),
        ("1 A.\n1 B.\n2 Where is A?\tx\t1\n", 2, "1 sentences and 0 questions"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=what) as caught:
        read_stories(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_an_empty_file_and_a_wrong_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_stories(path)
    path.write_bytes("1 Mary moved.\n2 Zo\xe9 left.\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"bad.txt:2: not UTF-8"):
        read_stories(path)


@pytest.mark.parametrize("task", FILES)
def test_the_solver_answers_the_real_questions(data_root: Path, task: int) -> None:
    """It is the oracle of the tests below. In task 5 three in a thousand ask for a gift of which there were several;
    there the answer follows from the supporting sentence."""
    missed = 0
    stories = read_stories(data_root / "babi" / "en" / f"{FILES[task]}_train.txt.gz")
    for story in stories:
        for asked in story.asked:
            missed += solve(asked.text, story.facts[: asked.facts]) != asked.answer
            if task == 5:
                assert solve(asked.text, [story.facts[place] for place in asked.support]) == asked.answer
            assert asked.answer in labels_of(task)
    assert sum(len(story.asked) for story in stories) == 1000
    assert missed <= (3 if task == 5 else 0)


@pytest.mark.parametrize("task", FACTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_world_answers_as_the_solver_does_and_from_the_support_alone(task: int, split: str) -> None:
    low, high = FACTS[task]
    answers = set()
    for index in range(60):
        story = tell(WorldConfig(), task, 5, split, index)
        (asked,) = story.asked
        assert low <= len(story.facts) <= high and asked.facts == len(story.facts)
        assert solve(asked.text, story.facts) == asked.answer
        assert solve(asked.text, [story.facts[place] for place in sorted(asked.support)]) == asked.answer
        assert len(asked.support) == {1: 1, 2: 2, 3: 3, 4: 1, 5: 1}[task]
        answers.add(asked.answer)
    assert answers <= set(labels_of(task)) and len(answers) >= 6


@pytest.mark.parametrize("task", FACTS)
def test_the_labels_of_a_world_are_what_its_questions_can_have_as_answers(task: int) -> None:
    assert labels_of(task, WorldConfig()) == labels_of(task)
    for world in (WorldConfig(8, 10, 6), WorldConfig(3, 4, 2)):
        answers = {
            asked.answer for index in range(300) for asked in tell(world, task, 5, "train", index, questions=0).asked
        }
        assert answers == set(labels_of(task, world))


def test_worlds_are_pure_and_no_two_splits_tell_the_same_story() -> None:
    for task in (1, 4):
        told = {
            split: [tell(WorldConfig(), task, 0, split, index) for index in range(80)] for split in ("train", "test")
        }
        assert told["test"][7] == tell(WorldConfig(), task, 0, "test", 7)
        assert told["test"][7] != tell(WorldConfig(), task, 1, "test", 7)
        assert not {story.facts for story in told["train"]} & {story.facts for story in told["test"]}


def test_several_questions_differ_and_too_many_are_refused() -> None:
    story = tell(WorldConfig(facts=[12, 16]), 1, 0, "train", 0, questions=3)
    assert len({asked.text for asked in story.asked}) == 3
    assert all(solve(asked.text, story.facts) == asked.answer for asked in story.asked)
    with pytest.raises(UserError, match=r"data.questions=5: no story of task 1"):
        tell(WorldConfig(), 1, 0, "train", 0, questions=5)
