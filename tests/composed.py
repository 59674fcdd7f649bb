"""What a choice of a configuration group comes to, once everything that it inherits is in it."""

from __future__ import annotations

from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf


def node(group: str, choice: str, *overrides: str) -> dict[str, Any]:
    """The keys of `group`, with `choice` made and `overrides` applied, resolved to plain containers."""
    return dict(_node(group, choice, overrides))


@cache
def _node(group: str, choice: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_module("dtsim.conf", version_base="1.3"):
        whole = compose("config", overrides=[f"{group}={choice}", *overrides])
    found: Any = OmegaConf.to_container(whole, resolve=True)
    for name in group.split("/"):
        found = found[name]
    return found
