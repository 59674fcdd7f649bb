from typing import Any

import pytest
from pydantic import Field

from dtsim.core.parts import ConfigError, build, part


@part
class Radio:
    """A part for these tests."""

    power_w: float = Field(gt=0)
    users: int = Field(2, ge=1, le=9)
    names: list[str] = Field(default_factory=list)

    def __post_init__(self) -> None:
        if self.users == 7:
            raise ValueError("users=7: must be a luckier number")


class Foreign:
    """A user's own class, which is no part."""

    def __init__(self, *, size: int) -> None:
        if size < 0:
            raise ValueError("size must not be negative")
        self.size = size


HERE = f"{__name__}."


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"power_w": -1.0}, "radio.power_w=-1.0: must be > 0"),
        ({"power_w": "high"}, "radio.power_w='high': must be a number"),
        ({"power_w": 1.0, "users": 2.5}, "radio.users=2.5: must be a whole number"),
        ({"power_w": 1.0, "users": True}, "radio.users=True: must be a whole number"),
        ({"power_w": 1.0, "users": 10}, "radio.users=10: must be <= 9"),
        ({"power_w": 1.0, "users": 7}, "radio.users=7: must be a luckier number"),
        ({"power_w": float("nan")}, "radio.power_w=nan: must be a finite number"),
        ({"power_w": 1.0, "typo": 1}, "radio.typo=1: there is no such key"),
        ({"power_w": 1.0, "names": ["a", 3]}, "radio.names.1=3: must be a text"),
        ({}, "radio.power_w: must be given"),
    ],
)
def test_a_bad_key_is_one_line_with_key_value_and_what_is_allowed(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"_target_": f"{HERE}Radio", **keys}, "radio")
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(said)


def test_all_bad_keys_are_found_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"_target_": f"{HERE}Radio", "power_w": 0.0, "users": 0, "typo": 1}, "radio")
    assert len(caught.value.lines) == 3


def test_a_class_that_is_no_part_is_built_and_its_refusal_is_one_line() -> None:
    assert build({"_target_": f"{HERE}Foreign", "size": 3}, "radio").size == 3
    for keys in ({"size": -1}, {"sise": 3}):
        with pytest.raises(ConfigError) as caught:
            build({"_target_": f"{HERE}Foreign", **keys}, "radio")
        assert len(caught.value.lines) == 1
        assert caught.value.lines[0].startswith("radio: ")


@pytest.mark.parametrize("target", ["nowhere.Radio", f"{HERE}Nothing", 3, None, "Radio"])
def test_a_target_that_cannot_be_imported_is_named(target: object) -> None:
    with pytest.raises(ConfigError, match=r"radio\._target_="):
        build({"_target_": target}, "radio")
