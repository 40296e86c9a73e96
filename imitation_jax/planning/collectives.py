"""What a compiled program sends between devices, read from its module's text (HLO).

A collective inside a loop counts as often as the loop turns; one in a loop whose end depends on data counts once.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
KINDS += ("ragged-all-to-all",)
PALLAS = "tpu_custom_call"


@dataclasses.dataclass(frozen=True)
class Collective:
    """All turns of one instruction.

    Attributes:
      kind: of `KINDS`.
      axes: mesh axes that it goes along, "+" between them.
      sent: bytes that a device sends in all turns: of an array of n bytes over g devices, n (g - 1) / g for a gather,
        a scatter and an exchange, twice that for a reduction to all, n for a permutation.
      turns: how often it runs.
    """

    kind: str
    axes: str
    sent: float
    turns: int


class _Instruction(NamedTuple):
    name: str
    opcode: str
    result: str
    operands: tuple[str, ...]
    text: str
    root: bool


class Module:
    """The computations of a module's text, and how often each runs."""

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, _Instruction]] = {}
        entry = current = ""
        for line in text.splitlines():
            if match := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                current = match[2]
                self._computations[current] = {}
                entry = current if match[1] else entry
            elif current and (match := re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)", line)):
                operands = tuple(re.findall(r"%([\w.\-]+)", _inside(match[5])))
                made = _Instruction(match[2], match[4], match[3], operands, line, bool(match[1]))
                self._computations[current][made.name] = made
        self._turns: dict[str, int] = defaultdict(int)
        if entry:
            self._visit(entry, 1)

    def instructions(self) -> Iterator[tuple[_Instruction, str, int]]:
        """Each instruction that runs, the computation that it is in, and how often."""
        for name, turns in self._turns.items():
            yield from ((instruction, name, turns) for instruction in self._computations[name].values())

    def _visit(self, name: str, turns: int) -> None:
        self._turns[name] += turns
        for instruction in self._computations[name].values():
            if instruction.opcode in ("async-done", "async-update"):
                continue  # of what async-start called
            called = re.findall(r"(?:calls|body|to_apply|condition)=%?([\w.\-]+)", instruction.text)
            for several in re.findall(r"branch_computations=\{([^}]*)\}", instruction.text):
                called += re.findall(r"%?([\w.\-]+)", several)
            called += re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.text)
            times = self._trips(name, instruction) if instruction.opcode == "while" else 1
            for one in called:
                if one in self._computations:
                    self._visit(one, turns * times)

    # ------------------------------------------------------------------------------------------------------------------
    # Loops
    # ------------------------------------------------------------------------------------------------------------------

    def _trips(self, name: str, loop: _Instruction) -> int:
        """How often a loop turns: as XLA notes it, else (limit - start) / step of the counter; 1 where data say it."""
        if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text):
            return int(match[1])
        condition = self._computations[re.search(r"condition=%?([\w.\-]+)", loop.text)[1]]
        body = self._computations[re.search(r"body=%?([\w.\-]+)", loop.text)[1]]
        root = next(each for each in condition.values() if each.root)
        compared = self._resolve(condition, root)
        if not isinstance(compared, tuple) or compared[0] != "LT":
            return 1
        counter, limit = compared[1:]
        start = self._element(self._computations[name], loop.operands[0], counter)
        grown = self._element(body, next(each for each in body.values() if each.root).name, counter)
        if not isinstance(start, int) or not isinstance(grown, tuple) or grown[:2] != ("add", counter):
            return 1
        return max(0, math.ceil((limit - start) / grown[2]))

    def _element(self, computation: dict[str, _Instruction], name: str, index: int) -> object:
        """What the element of a tuple is, as `_resolve` says it."""
        made = computation.get(name)
        if made is None or made.opcode != "tuple":
            return None
        return self._resolve(computation, computation[made.operands[index]])

    def _resolve(self, computation: dict[str, _Instruction], made: _Instruction, given: tuple = ()) -> object:
        """int, ("element", i) of the parameter, ("add", i, int), ("LT", i, int), or None for what is none of these.

        Args:
          given: what the parameters of a fusion are.
        """

        def operand(number: int) -> object:
            return self._resolve(computation, computation[made.operands[number]], given)

        if made.opcode == "constant":
            match = re.search(r"constant\((-?\d+)\)", made.text)
            return int(match[1]) if match else None
        if made.opcode == "parameter" and given:
            return given[int(re.search(r"parameter\((\d+)\)", made.text)[1])]
        if made.opcode == "get-tuple-element" and computation[made.operands[0]].opcode == "parameter":
            return "element", int(re.search(r"index=(\d+)", made.text)[1])
        if made.opcode in ("copy", "bitcast", "convert"):
            return operand(0)
        if made.opcode == "fusion":
            inside = self._computations[re.search(r"calls=%?([\w.\-]+)", made.text)[1]]
            root = next(each for each in inside.values() if each.root)
            return self._resolve(inside, root, tuple(map(operand, range(len(made.operands)))))
        if made.opcode not in ("add", "compare"):
            return None
        left, right = operand(0), operand(1)
        if isinstance(left, int) and isinstance(right, tuple) and made.opcode == "add":
            left, right = right, left
        if not (isinstance(left, tuple) and left[0] == "element" and isinstance(right, int)):
            return None
        if made.opcode == "compare" and "direction=LT" not in made.text:
            return None
        return "add" if made.opcode == "add" else "LT", left[1], right


def collectives(module: Module, mesh: Mapping[str, int]) -> list[Collective]:
    """The collectives of a program for a mesh with axes of these sizes, in the order in which devices are numbered."""
    listed = []
    for made, within, turns in module.instructions():
        kind = made.opcode.removesuffix("-start")
        if across := _between_slices(made):
            kind, size = across
            sent = _sent(kind, _bytes(made.result.rpartition(", u32")[0]), size)
            listed.append(Collective(kind, next(iter(mesh)), sent * turns, turns))
        if kind not in KINDS or across:
            continue
        # A fused collective stands where it starts, where it goes on beside computation, and where it ends.
        if re.search(r'"async_collective_fusion_config":\{"flag_start":"\d', made.text):
            continue
        groups = _groups(made.text, math.prod(mesh.values()))
        size = groups.shape[1]
        if size < 2 or not turns:
            continue
        whole = _bytes(made.result, halves=made.opcode.endswith("-start") and kind != "all-reduce")
        if "all-reduce-scatter" in within:  # a fusion that keeps a part of what it adds up
            kind, whole = "reduce-scatter", whole / size
        if kind == "reduce-scatter":
            whole *= size  # its result is a part
        sent = _sent(kind, whole, size) * turns
        listed.append(Collective(kind, _axes(groups, mesh), sent, turns))
    return listed


def pallas_calls(module: Module) -> dict[str, int]:
    """How many calls of Pallas kernels the module has, by what they are called in the program; loops count once."""
    counts: dict[str, int] = defaultdict(int)
    for made, *_ in module.instructions():
        if made.opcode == "custom-call" and f'custom_call_target="{PALLAS}"' in made.text:
            source = re.search(r'op_name="(?:[^"]*/)?([^"/]+)"', made.text)
            counts[source[1] if source else made.name] += 1
    return dict(counts)


def _between_slices(made: _Instruction) -> tuple[str, int] | None:
    """What goes over the data-centre network, which the hosts do, and between how many slices."""
    match = re.search(r'_xla_megascale_transfer_type="(\w+)"', made.text)
    if made.opcode != "send" or not match:
        return None
    kind = match[1].lower().replace("_", "-")
    numbers = re.search(r'_xla_megascale_target="\{([^}]*)\}', made.text)[1]
    ends = [[int(end) for end in part.split(":")] for part in numbers.split(",")]
    return (kind if kind in KINDS else "collective-permute"), sum(end[-1] - end[0] + 1 for end in ends)


def _sent(kind: str, whole: float, size: int) -> float:
    """Bytes that one of `size` devices sends where the whole array has so many."""
    if kind in ("collective-permute", "collective-broadcast"):
        return whole
    return whole * (2 if kind == "all-reduce" else 1) * (size - 1) / size


def _inside(text: str) -> str:
    """Up to the parenthesis that closes what is open."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:place]
    return text


def _bytes(result: str, halves: bool = False) -> float:
    """Bytes of a result; of the two halves of an asynchronous start's, operands and results, of the second.

    That of an all-reduce has its results alone.
    """
    sizes = []
    for kind, dims in re.findall(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]", result):
        bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])
        sizes.append(math.prod(int(dim) for dim in dims.split(",") if dim) * bits / 8)
    if halves and result.startswith("("):
        arrays = [size for size, scalar in zip(sizes, re.findall(r"\[([\d,]*)\]", result), strict=True) if scalar]
        sizes = arrays[len(arrays) // 2 :]
    return sum(sizes)


def _groups(text: str, devices: int) -> np.ndarray:
    """(groups, size) of device numbers that talk to each other."""
    if match := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
        pairs = [tuple(map(int, pair.split(","))) for pair in re.findall(r"\{(\d+,\d+)\}", match[1])]
        return np.array([pair for pair in pairs if pair[0] != pair[1]] or [[0]])
    if match := re.search(r"replica_groups=\{(\{.*?\})\}", text):
        return np.array([[int(one) for one in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", match[1])])
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _iota(match[3]).reshape(int(match[1]), int(match[2]))
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\)(?= \{))? \{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        ids = np.arange(math.prod(sizes.values())) if not match[2] else _ids(match[2])
        return _of_axes(ids, sizes, match[3])
    return np.arange(devices)[None]


def _ids(text: str) -> np.ndarray:
    return _iota(text).reshape(-1) if text.startswith("[") else np.array([int(one) for one in text.split(",")])


def _iota(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: 0, 1, 2, ... in this shape, transposed."""
    dims, _, order = text.partition("T")
    sizes = [int(size) for size in re.findall(r"\d+", dims)]
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids.transpose([int(axis) for axis in re.findall(r"\d+", order)]) if order else ids


def _of_axes(ids: np.ndarray, sizes: dict[str, int], named: str) -> np.ndarray:
    """Groups along named axes; `'x':(2)4` is the part of x of size 4 that 2 others lie before."""
    shape: list[int] = []
    place: dict[str, list[tuple[int, int]]] = {}  # axis -> (how many lie before, dimension)
    parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", named)
    for name, size in sizes.items():
        cuts = sorted(
            {1, size}
            | {
                int(edge)
                for axis, before, n in parts
                if axis == name and n
                for edge in (int(before), int(before) * int(n))
            }
        )
        place[name] = []
        for before, after in zip(cuts, cuts[1:], strict=False):
            place[name].append((before, len(shape)))
            shape.append(after // before)
    chosen = []
    for name, before, size in parts:
        least, most = (int(before), int(before) * int(size)) if size else (1, sizes[name])
        chosen += [dimension for at, dimension in place[name] if least <= at < most]
    array = ids.reshape(shape)
    rest = [dimension for dimension in range(len(shape)) if dimension not in chosen]
    return array.transpose(rest + chosen).reshape(-1, math.prod(shape[dimension] for dimension in chosen))


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> str:
    """The mesh axes along which the devices of a group differ."""
    places = np.stack(np.unravel_index(groups, tuple(mesh.values())), axis=-1)  # (groups, size, axes)
    differs = (places != places[:, :1]).any(axis=(0, 1))
    return "+".join(name for name, differ in zip(mesh, differs, strict=True) if differ)
