"""Budgets as plain numbers: the resolver of `conf/<paper>/budget/<experiment>_<scale>.yaml`.

budget:                                             # the first line whose `when` agrees with the settings
  - {when: {data.hops: 6}, steps: 560}
  - {steps: 900}
outer: {steps: "${budget:steps}"}
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError

NAME, WHEN = "budget", "when"
"""Of the key and of the resolver; and of a line's settings."""


def number(name: str, *, _node_: Any, _root_: DictConfig) -> Any:
    """The value that the lines of `budget` have under `name` for the other settings of the configuration.

    Raises:
        UserError: no line is for them.
    """
    seen: dict[str, str] = {}
    for line in _root_.get(NAME) or []:
        wanted = {str(key): str(value) for key, value in (line.get(WHEN) or {}).items()}
        there = {key: str(OmegaConf.select(_root_, key)) for key in wanted}
        if there == wanted and name in line:
            return line[name]
        seen |= there
    key = _node_._get_full_key(None)
    settings = ", ".join(f"{name}={value}" for name, value in seen.items()) or "these settings"
    raise UserError(
        f"{key}: the budget of experiment={_root_.experiment}, scale={_root_.scale} has no {name} for {settings}; give "
        f"{key}=<number>, or a line in conf/<paper>/budget/{_root_.experiment}_{_root_.scale}.yaml"
    )


OmegaConf.register_new_resolver(NAME, number, replace=True)
