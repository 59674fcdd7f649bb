"""Descriptions of keys are read from the source of the classes, and say what pydantic checks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from pydantic import TypeAdapter

from dtsim.core.fields import described, summary
from dtsim.runner.choices import Conf

SOURCE = '''
from __future__ import annotations
from typing import Annotated, ClassVar, Literal
from pydantic import Field
from dtsim.core.parts import part
from {other} import Colour, Base

class Plain:
    """No part."""
    def __init__(self, *, size: int, name: str = "x"): ...

@part
class Mine(Base):
    """What it is.

    More.
    """
    kind: ClassVar[str] = "mine"
    _hidden: int = 0
    power_w: float = Field(default=1.0e3, gt=0)
    """Power
    of it [W]; a lot."""
    share: float = Field(0.5, ge=0, lt=1)
    """A share."""
    colour: Colour = "red"
    """Its `colour`."""
    spot: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Where [m]; null: nowhere."""
    count: int | list[int] = Field(default=3)
    """How many of [0, 1]."""
    loud: bool
    size: int = Field(default=7, ge=1, le=9)
'''
OTHER = '''
from typing import Literal
from pydantic import Field
from dtsim.core.parts import part
Colour = Literal["red", "blue"]
@part
class Base:
    size: int = Field(default=4, ge=1, le=2**31 - 1)
    """Its size [pixel]."""
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"mine_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(SOURCE.replace("{other}", f"{name}_base"))
    (tmp_path / f"{name}_base.py").write_text(OTHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_key_has_type_unit_range_default_and_description(mine: str) -> None:
    keys = {key.name: key for key in described(f"{mine}.Mine")}
    assert list(keys) == ["size", "power_w", "share", "colour", "spot", "count", "loud"]
    assert (keys["power_w"].type, keys["power_w"].default) == ("float", "1.0e3")
    assert keys["colour"].type == "Literal['red', 'blue']", "named types are followed through imports"
    assert keys["loud"].default is None and keys["spot"].default == "null"
    assert {name: key.comment for name, key in keys.items()} == {
        "size": "[pixel, 1 to 9] Its size",  # declared again without a docstring: the base class's
        "power_w": "[W, > 0] Power of it; a lot",
        "share": "[-, >= 0, < 1] A share",
        "colour": "[red | blue] Its colour",
        "spot": "[m, 2 entries or null] Where; null: nowhere",
        "count": "How many of [0, 1]",
        "loud": "[true | false]",
    }
    assert summary(f"{mine}.Mine") == "What it is."
    assert mine not in sys.modules, "nothing is imported"


def test_a_class_that_is_no_part_is_described_by_its_init(mine: str) -> None:
    keys = described(f"{mine}.Plain")
    assert [(key.name, key.type, key.default) for key in keys] == [("size", "int", None), ("name", "str", "'x'")]


@pytest.mark.parametrize("target", ["nowhere.Mine", "Mine", "", "dtsim.core.fields.Nothing", "sys.Mine", "a..b"])
def test_what_cannot_be_found_has_no_keys(target: str) -> None:
    assert described(target) == [] and summary(target) == ""


TARGETS = sorted(
    {target for choices in Conf().groups.values() for c in choices.values() if (target := Conf().class_of(c))}
)


@pytest.mark.parametrize("target", [target for target in TARGETS if target.startswith("dtsim.")])
def test_every_field_of_every_class_is_described(target: str) -> None:
    keys = described(target)
    assert {key.name for key in keys} == {field.name for field in fields(get_class(target))}
    assert all(key.description for key in keys), "a docstring under each field"


# What a key's name ends with, and the unit that its description must then give.
UNITS = {
    "_s": "s",
    "_m": "m",
    "_mps": "m/s",
    "_rad": "rad",
    "_deg": "degree",
    "_hz": "Hz",
    "_bps": "bit/s",
    "_db": "dB",
}
UNITS |= {"_dbm": "dBm", "_flops": "FLOP/s", "_bytes": "byte", "_nat": "nat", "_frames": "frames"}


@pytest.mark.parametrize("target", [*TARGETS, "dtsim.runner.config.Config", "dtsim.runner.config.Time"])
def test_names_and_descriptions_agree_on_the_unit(target: str) -> None:
    for key in described(target):
        unit = UNITS.get(f"_{key.name.rpartition('_')[2]}") if "_" in key.name else None
        assert unit is None or key.unit == unit, f"{target}.{key.name}"


def refused(schema: TypeAdapter[Any], values: dict[str, Any]) -> bool:
    try:
        schema.validate_python(values)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("target", [target for target in TARGETS if target.startswith("dtsim.")])
def test_the_range_that_is_said_is_the_one_that_is_checked(target: str) -> None:
    """Just outside of what `allowed` says, the class refuses that key by name."""
    cls = get_class(target)
    for key in described(target):
        number = int if key.type.split(" | ")[0] == "int" else float
        for limit in key.allowed.removesuffix(" or null").split(", "):
            words = limit.split()
            if limit.startswith((">", "<")) and "entries" not in limit:
                step = {">": 0, ">=": -1, "<": 0, "<=": 1}[words[0]]
                outside = [float(words[1]) * (2 if words[0] == "<=" else 1) + step]
            elif " to " in limit:
                low, high = limit.split(" to ")
                outside = [float(low) - 1, 2 * float(eval(high)) + 1]
            else:
                continue
            for value in outside:
                with pytest.raises(ValueError, match=key.name):
                    cls(**{key.name: number(value)})


def test_help_reads_descriptions_without_torch() -> None:
    code = (
        "import sys, io, contextlib\n"
        "from dtsim.runner.help import show_help\n"
        "with contextlib.redirect_stdout(io.StringIO()) as said: show_help([])\n"
        "print('torch' in sys.modules, 'hydra' in sys.modules, 'Uplink bandwidth of one user' in said.getvalue())"
    )
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=wide)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr
