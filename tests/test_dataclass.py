"""The dataclasses of ours against those of the standard library."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from blkmig_cli import dataclass as ours

Decorator = Callable[..., Callable[[type], type]]


def classes(decorator: Decorator) -> dict[str, Any]:
    """Return classes of every kind in use, made by ``decorator``."""

    @decorator(frozen=True, slots=True)
    class Base:
        kind: ClassVar[str] = "base"
        offset: int
        length: int = 0

        @property
        def end(self) -> int:
            return self.offset + self.length

    @decorator(frozen=True, slots=True)
    class Derived(Base):
        kind = "derived"
        names: tuple[str, ...] = ()
        found: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
        size: int = dataclasses.field(kw_only=True, default=512, repr=False)

    @decorator(slots=True)
    class Changing:
        """A docstring."""

        items: list[int] = dataclasses.field(default_factory=list)
        count: int = 0

        def __post_init__(self) -> None:
            self.count += len(self.items)

    @decorator(slots=True, eq=False)
    class Identical:
        value: int

    @decorator(frozen=True, slots=True)
    class Empty:
        pass

    made = {each.__name__: each for each in (Base, Derived, Changing, Identical, Empty)}
    for each in made.values():
        each.__qualname__ = each.__name__
    return made


STANDARD, OURS = classes(dataclasses.dataclass), classes(ours.dataclass)
globals().update(OURS)  # so that pickle finds them

MADE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "base": lambda of: of["Base"](3),
    "base, all": lambda of: of["Base"](3, length=4),
    "derived": lambda of: of["Derived"](3, 4, ("a",)),
    "derived, all": lambda of: of["Derived"](3, 4, ("a",), {"b": 1}, size=1),
    "changing": lambda of: of["Changing"](),
    "changing, all": lambda of: of["Changing"]([1, 2], 3),
    "identical": lambda of: of["Identical"](1),
    "empty": lambda of: of["Empty"](),
    "replaced": lambda of: dataclasses.replace(of["Derived"](3, 4), length=9),
}


def outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (TypeError, AttributeError):  # which of the two differs between versions of Python
        return "refused"


@pytest.mark.parametrize("name", MADE)
def test_objects_are_the_same(name: str) -> None:
    ours, theirs = MADE[name](OURS), MADE[name](STANDARD)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert str(inspect.signature(type(ours))) == str(inspect.signature(type(theirs)))
    assert not hasattr(ours, "__dict__")
    if name != "identical":
        assert outcome(lambda: hash(ours)) == outcome(lambda: hash(theirs))


@pytest.mark.parametrize("attribute", ["offset", "items", "value", "another"])
@pytest.mark.parametrize("name", MADE)
def test_changes(name: str, attribute: str) -> None:
    ours, theirs = MADE[name](OURS), MADE[name](STANDARD)
    assert outcome(lambda: setattr(ours, attribute, 7)) == outcome(
        lambda: setattr(theirs, attribute, 7)
    )
    assert repr(ours) == repr(theirs)
    assert outcome(lambda: delattr(ours, attribute)) == outcome(lambda: delattr(theirs, attribute))


def test_equality() -> None:
    made = {name: (make(OURS), make(STANDARD)) for name, make in MADE.items()}
    made |= {name + ", again": (make(OURS), make(STANDARD)) for name, make in MADE.items()}
    for a in made.values():
        for b in made.values():
            assert (a[0] == b[0]) is (a[1] == b[1])
            assert (a[0] != b[0]) is (a[1] != b[1])


@pytest.mark.parametrize("name", [name for name in MADE if name != "identical"])
def test_copies(name: str) -> None:
    made = MADE[name](OURS)
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made


@pytest.mark.parametrize(
    ("name", "arguments"), [("Base", ()), ("Base", (1, 2, 3)), ("Derived", (1, 2, (), {}, 5))]
)
def test_wrong_arguments(name: str, arguments: tuple[Any, ...]) -> None:
    for of in (OURS, STANDARD):
        with pytest.raises(TypeError):
            of[name](*arguments)
