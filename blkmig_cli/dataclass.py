"""Dataclasses that are quick to define: a sixth of the time that ``dataclasses.dataclass`` takes.

A command defines about ninety of them before it does anything.  The fields are those of the standard
library's dataclass, so that ``field``, ``fields`` and ``replace`` work; of the methods, ``__init__``
alone is compiled for each class, and the others are shared.
"""

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


class _Factory:
    """The default of a parameter whose value is made for each object."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        *, frozen: bool = False, slots: bool = False, eq: bool = True
    ) -> Callable[[type], type]:
        """Return a decorator that makes a dataclass, as ``dataclasses.dataclass`` does.

        ``frozen``, ``slots`` and ``eq`` mean what they mean there.  ``InitVar`` and fields that are
        not parameters of ``__init__`` are not supported.
        """

        def make(cls: type) -> type:
            cls.__doc__ = (
                cls.__doc__ or cls.__name__
            )  # else the signature is put together, which takes long
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            cls.__init__ = _initializer(cls, frozen)
            names = [entry.name for entry in dataclasses.fields(cls) if entry.compare]
            if "__repr__" not in cls.__dict__:
                cls.__repr__ = _repr
            if eq:
                cls.__eq__ = _equality(_values(names))
                cls.__hash__ = _hashing(_values(names)) if frozen else None
            if frozen:
                cls.__setattr__ = cls.__delattr__ = _refuse
                cls.__getstate__, cls.__setstate__ = _get_state, _set_state
            return cls

        return make


def _initializer(cls: type, frozen: bool) -> Callable[..., None]:
    """Return ``__init__`` of a dataclass; that of a frozen one sets its fields past ``__setattr__``."""
    names: dict[str, Any] = {"FACTORY": _FACTORY, "set": object.__setattr__}
    parameters, keywords, body = ["self"], list[str](), list[str]()
    for entry in dataclasses.fields(cls):
        name, value = entry.name, entry.name
        parameter = name
        if entry.default is not dataclasses.MISSING:
            names[f"default_{name}"] = entry.default
            parameter = f"{name}=default_{name}"
        elif entry.default_factory is not dataclasses.MISSING:
            names[f"default_{name}"] = entry.default_factory
            parameter = f"{name}=FACTORY"
            value = f"default_{name}() if {name} is FACTORY else {name}"
        (keywords if entry.kw_only else parameters).append(parameter)
        if not frozen:
            body.append(f"self.{name} = {value}")
        elif setter := getattr(getattr(cls, name, None), "__set__", None):  # of a slot
            names[f"set_{name}"] = setter
            body.append(f"set_{name}(self, {value})")
        else:
            body.append(f"set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    signature = ", ".join([*parameters, *(["*", *keywords] if keywords else [])])
    exec(f"def __init__({signature}):\n " + "\n ".join(body or ["pass"]), names)  # noqa: S102
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = {entry.name: entry.type for entry in dataclasses.fields(cls)} | {
        "return": None
    }
    return made


def _values(names: list[str]) -> Callable[[Any], Any]:
    """Return a function of an object's attributes ``names``."""
    return attrgetter(*names) if names else lambda _: ()


def _equality(values: Callable[[Any], Any]) -> Callable[[Any, Any], bool]:
    def equal(self: Any, other: Any) -> bool:
        return (
            values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
        )

    return equal


def _hashing(values: Callable[[Any], Any]) -> Callable[[Any], int]:
    return lambda self: hash(values(self))


def _repr(self: Any) -> str:
    shown = (
        f"{entry.name}={getattr(self, entry.name)!r}"
        for entry in dataclasses.fields(self)
        if entry.repr
    )
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, *_: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, entry.name) for entry in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for entry, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, entry.name, value)
