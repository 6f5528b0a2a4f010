"""Parsing YAML within limits.

PyYAML is slow to load and seldom needed: import this module only where it is used.
"""

from typing import Any

import yaml

from blkmig_cli import limits
from blkmig_cli.text import brief

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH_MAX = 64
# More digits than any valid number has.
_DIGITS_MAX = 40


class _Bounded(_Loader):  # type: ignore[misc]
    """The safe loader, which creates plain data only; it refuses numbers of many digits."""


def _number(loader: Any, node: Any) -> Any:
    if len(node.value) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(node.value)} digits")
    return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Bounded.add_constructor(_tag, _number)


def parse_yaml(text: bytes) -> Any:
    """Return the value of a YAML document.

    Raises ValueError where the text is not YAML, is nested too deep, has numbers of too many digits,
    or more than ``limits.SPEC_NODES_MAX`` values, with each alias counted as what it refers to.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Bounded)  # noqa: S506 (it is the safe loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _check_size(text: bytes) -> None:
    """Raise ValueError where the document has too many values; counts without storing them."""
    sizes: dict[str | None, int] = {}
    # Anchors and sizes of the open nodes; the first is the document.
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > _DEPTH_MAX:
                raise ValueError("it is nested too deep")
            size = 1
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias {brief(event.anchor)} is within its anchor, or has none")
            size = sizes[event.anchor]
        total += size
        if total > limits.SPEC_NODES_MAX:
            raise ValueError(f"it has over {limits.SPEC_NODES_MAX} values")
