"""Which layer of a file belongs to which layer of a network, where the names don't say it."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import LoadError

__all__ = ["Slot", "Unit", "Values", "blank", "match"]

Values = Mapping[str, np.ndarray]


@dataclass(eq=False)
class Slot:
    """A layer of the network.

    Attributes:
        name: its path.
        module: the layer.
        family: what kind of layer it is, such as ``"dense"``; ``""`` for those that no other framework has.
        key: what is the same for all names of one layer.
        entries: what it needs -> its name in a state dict of the network.
        shapes: what it needs -> its shape, ``None`` for sizes that are not known yet.
        alias: whether the same layer has another name before.
    """

    name: str
    module: Any
    family: str
    key: Any
    entries: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    alias: bool = False

    @functools.cached_property
    def pattern(self) -> str:
        """Its path without the numbers of positions."""
        return blank(self.name)

    @functools.cached_property
    def kind(self) -> Any:
        """What decides which values fit."""
        return self.family, tuple(self.shapes.items())

    def takes(self, values: Values | None) -> bool:
        """Whether these are values for all that the layer needs, and for nothing else."""
        if values is None or values.keys() != self.shapes.keys():
            return False
        return all(_agree(self.shapes[role], array.shape) for role, array in values.items())


def _agree(known: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(known) == len(shape) and all(a in (None, b) for a, b in zip(known, shape, strict=True))


def blank(path: str) -> str:
    """A path with ``#`` for each of its parts that is a number."""
    return ".".join("#" if part.isdecimal() else part for part in path.split("."))


@dataclass(eq=False)
class Unit:
    """A layer of the file.

    Attributes:
        label: how messages call it.
        arrays: the file's names of its arrays -> these.
        names: the names under which the network may have it, the best first.
        families: what kinds of layers it may be; ``None`` where the file doesn't say.
        values: what the arrays are for a slot, by its roles and in its layouts; ``None`` where they make no sense.
        order: where it comes among the units of the same ``row``; ``None`` where that means nothing.
        row: what units have in common whose order says something.
        pattern: the path of its place in the network but for the numbers; ``None`` where it can be anywhere.
        channels: of the image that a dense layer takes flattened with channels last; ``None`` if it doesn't, 0 if the
            file doesn't say.
    """

    label: str
    arrays: dict[str, np.ndarray]
    names: tuple[str, ...]
    families: frozenset[str] | None
    values: Callable[[Slot], Values | None]
    order: Any = None
    row: Any = None
    pattern: str | None = None
    channels: int | None = None
    _fits: dict[Any, bool] = field(default_factory=dict)

    def fits(self, slot: Slot) -> bool:
        """Whether the layer of the network could take its values."""
        if not self.may_be(slot):
            return False
        if slot.kind not in self._fits:
            self._fits[slot.kind] = slot.takes(self.values(slot))
        return self._fits[slot.kind]

    def may_be(self, slot: Slot) -> bool:
        """The same by kind and place alone."""
        known = slot.family if self.families is None else slot.family in self.families
        return bool(known) and self.pattern in (None, slot.pattern)


def match(units: list[Unit], slots: list[Slot], what: str) -> dict[Unit, Slot]:
    """Find the slot of each unit: by name; then by order among layers of one kind; then by what fits only there.

    Units and slots that have no counterpart are left out.

    Args:
        units: the layers of the file.
        slots: the layers of the network, in order; those with further names once for each.
        what: how messages call the file.

    Raises:
        LoadError: something is left that fits in several ways.
    """
    found = dict(_by_name(units, slots))
    for method in (_by_order, _by_fit):
        taken = {slot.key for slot in found.values()}
        free = [slot for slot in slots if slot.family and slot.key not in taken]
        found |= method([unit for unit in units if unit not in found], free, what)
    return found


def _by_name(units: list[Unit], slots: list[Slot]) -> Iterator[tuple[Unit, Slot]]:
    by_name = {slot.name: slot for slot in slots}
    several = Counter(slot.name for slot in slots)
    wanted = Counter(name for unit in units for name in unit.names)
    taken: set[str] = set()
    for unit in units:
        for name in unit.names:
            if several[name] == wanted[name] == 1 and name not in taken:
                taken.add(name)
                yield unit, by_name[name]
                break


def _by_order(units: list[Unit], slots: list[Slot], what: str) -> dict[Unit, Slot]:
    """Pair as many units as slots of one kind, if the order of the units is known and all of them fit."""
    result: dict[Unit, Slot] = {}
    groups: dict[Any, list[Unit]] = defaultdict(list)
    for unit in units:
        groups[unit.families, unit.pattern].append(unit)
    for group in groups.values():
        first = group[0]
        if first.families is None or any(unit.order is None or unit.row != first.row for unit in group):
            continue
        group.sort(key=lambda unit: unit.order)
        known = [slot for slot in slots if first.may_be(slot) and any(unit.fits(slot) for unit in group)]
        for places in (known, [slot for slot in known if not slot.alias]):
            if len(places) == len(group) and all(u.fits(s) for u, s in zip(group, places, strict=True)):
                result |= zip(group, places, strict=True)
                break
    return result


def _by_fit(units: list[Unit], slots: list[Slot], what: str) -> dict[Unit, Slot]:
    """Pair what fits in one way only."""
    slots = [slot for slot in slots if not slot.alias]
    places = {unit: [slot for slot in slots if unit.fits(slot)] for unit in units}
    pairs = _peel(places, forced=len(units) == len(slots))
    if len(pairs) < len(units):
        pairs = _peel(places, forced=False)
    taken = set(map(id, pairs.values()))
    left = {u: [s.name for s in fitting if id(s) not in taken] for u, fitting in places.items() if u not in pairs}
    unclear = {unit: names for unit, names in left.items() if names}
    if unclear:
        raise LoadError(_unclear_text(unclear, what))
    return pairs


def _peel(places: Mapping[Unit, list[Slot]], forced: bool) -> dict[Unit, Slot]:
    """Pair what has one possibility left, again and again; if not ``forced``, only when it is so from both sides.

    If every unit must have a slot and every slot a unit, and there is only one way to do so, this finds it.
    """
    pairs: dict[Unit, Slot] = {}
    while True:
        taken = set(map(id, pairs.values()))
        left = {u: [s for s in fitting if id(s) not in taken] for u, fitting in places.items() if u not in pairs}
        claims = Counter(id(slot) for fitting in left.values() for slot in fitting)
        new: dict[Unit, Slot] = {}
        for unit, fitting in left.items():
            alone = [slot for slot in fitting if claims[id(slot)] == 1]
            if forced and len(fitting) == 1:
                alone = fitting
            if (forced or len(fitting) == 1) and len(alone) == 1 and alone[0] not in new.values():
                new[unit] = alone[0]
        if not new:
            return pairs
        pairs |= new


def _unclear_text(unclear: Mapping[Unit, list[str]], what: str) -> str:
    lines = [f"{what}: it can't be told which layer of the network some layers of the file belong to:"]
    for unit, names in list(unclear.items())[:20]:
        shapes = ", ".join(str(array.shape) for array in unit.arrays.values())
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"    {unit.label} (shapes {shapes}) fits {', '.join(map(repr, names[:5]))}{more}")
    if len(unclear) > 20:
        lines.append(f"    ... and {len(unclear) - 20} more")
    lines.append(
        "  Their names don't match and their order is not known. Say which is which with rename={pattern: replacement} "
        "on the file's names, give the network its sizes, or save the whole model, which records the order."
    )
    return "\n".join(lines)
