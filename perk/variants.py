"""A data set with contexts of another length, or with what is asked at another place in them."""

from dataclasses import replace

from common.data.dataroot import find
from common.errors import UserError
from perk.apis.config import Position
from perk.apis.documents import is_placed
from perk.babilong.config import Placement
from perk.config import DataConfig, Task


def with_length(config: DataConfig, split: str, length: int, most: int = 0) -> DataConfig:
    """The data set with contexts of another length in the split that is asked, `most` of them (0: all).

    Raises:
        UserError: its contexts are as they are, or shorter than a segment.
    """
    if _fixed(config):
        raise UserError(f"evaluation.lengths=[{length}]: {config.name} has contexts as the file has them; use []")
    try:
        longer = replace(config, test_length=length) if split == "test" else replace(config, length=length)
    except UserError as error:
        raise UserError(f"evaluation.lengths=[{length}]: {error}") from error
    return _alone(longer, split, most)


def with_position(config: DataConfig, split: str, position: str, most: int = 0) -> DataConfig:
    """The data set with the gold document, or the facts, at another position in the split that is asked, `most` of it.

    Raises:
        UserError: the task has no such position.
    """
    moved, tests = config, split == "test"
    if _fixed(config):
        raise UserError(f"evaluation.positions=[{position}]: {config.name} has contexts as the file has them; use []")
    try:
        if config.task is Task.apis:
            gold = Position(position)
            apis = replace(config.apis, test_position=gold) if tests else replace(config.apis, position=gold)
            moved = replace(config, apis=apis)
        elif config.task is Task.babilong:
            facts, mine = Placement(position), config.babilong
            mine = replace(mine, test_placement=facts) if tests else replace(mine, placement=facts)
            moved = replace(config, babilong=mine)
        else:
            raise UserError(f"evaluation.positions=[{position}]: {config.task} have no positions; use []")
    except ValueError:
        known: list[str] = [*Position] if config.task is Task.apis else [*Placement]
        raise UserError(f"evaluation.positions: {position} is none of {', '.join(known)}") from None
    return _alone(moved, split, most)


def position_of(config: DataConfig, split: str) -> str | None:
    """Where the gold document or the facts stand in a split; None for a task without positions."""
    if config.task is Task.apis:
        return str(config.apis.position_of(split))
    if config.task is Task.babilong:
        return str(config.babilong.placement_of(split))
    return None


def _fixed(config: DataConfig) -> bool:
    """Are contexts read whole, so that no length or position applies to them?"""
    if config.task is Task.apis and not config.made:
        try:
            return is_placed(find(config.root, str(config.files.train), "generate APIs"))
        except UserError:  # whoever reads it will say so
            return False
    return config.task is Task.jsonl or (config.task is Task.students and not config.made)


def _alone(config: DataConfig, split: str, most: int) -> DataConfig:
    """Of the split that is asked `most` problems (0: all), of the others as few as can be; what a problem is does not
    depend on how many there are.
    """
    own = config.count[split]
    wanted = min(own, most) if own and most else own
    return replace(config, count={each: wanted if each == split else 1 for each in config.count})
