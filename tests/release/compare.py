"""Two interpreters at work on the same programs, and what differs between their answers."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release.programs import Program

__all__ = ["Difference", "Meant", "Pair", "Worker", "differences", "gap", "references"]

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

RELATIVE = 2e-5
"""Release 0.2.0 sums in float32. Logs that differ by this are equal."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\binf\b|-?\bnan\b|-?\d+")
_DEFAULT_REPR = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")
_STORED = {"np.float64", "np.float32", "np.int64", "np.int32"}


class Worker:
    """`worker.py` under one interpreter."""

    def __init__(self, python: Path | str, path: Path | None) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")}
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        self._number = 0
        self.where = Path(self._answer()["ready"])

    def run(self, program: Program) -> Any:
        assert self._process.stdin is not None
        self._number += 1
        self._process.stdin.write(json.dumps([self._number, program.steps]) + "\n")
        self._process.stdin.flush()
        while (answer := self._answer())["number"] != self._number:
            pass  # of a program that whoever asked no longer waited for
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended: see its error above")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@dataclass(frozen=True)
class Difference:
    """One step that came out differently."""

    number: int
    step: dict[str, Any]
    theirs: Any
    ours: Any
    what: str

    @property
    def member(self) -> str:
        """The method, attribute or operation of the step."""
        kind, *rest = self.step["do"]
        return (
            str(rest[1] or "__init__") if kind in ("call", "get") else str(rest[0]) if kind == "op" else kind
        )

    def __str__(self) -> str:
        lines = (f"0.2.0: {_short(self.theirs)}", f"ours:  {_short(self.ours)}", self.what)
        return "\n   ".join([f"step {self.number} {json.dumps(self.step)}", *lines])


@dataclass(frozen=True)
class Meant:
    """A difference that is meant, why, and how it is told from others."""

    reason: str
    when: Callable[[Difference, Program], bool]


@dataclass
class Pair:
    """Both generations."""

    theirs: Worker
    ours: Worker
    visited: set[tuple[str, str]] = field(default_factory=set)
    attributes: dict[str, set[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def compare(self, program: Program, meant: list[Meant]) -> list[Difference]:
        """The differences that are not meant."""
        theirs, ours = self.theirs.run(program), self.ours.run(program)
        self.visited |= {(kind, name) for kind, name in theirs["visited"]}
        for kind, names in theirs["attributes"].items():
            self.attributes.setdefault(kind, set()).update(names)
        left = []
        for found in differences(program, theirs["outcomes"], ours["outcomes"]):
            reasons = [m.reason for m in meant if m.when(found, program)]
            self.used.update(reasons)
            if not reasons:
                left.append(found)
        return left


def differences(program: Program, theirs: list[Any], ours: list[Any]) -> Iterator[Difference]:
    """The steps that differ, but for those that only differ because an earlier one does."""
    assert len(theirs) == len(ours) == len(program.steps), (
        theirs[len(program.steps) :],
        ours[len(program.steps) :],
    )
    tainted: set[str] = set()
    for number, (step, their, our) in enumerate(zip(program.steps, theirs, ours, strict=True)):
        if tainted & set(references(step["do"])):
            tainted.add(step["as"])
            continue
        what = gap(their, our)
        if what:
            tainted.add(step["as"])
            yield Difference(number, step, their, our, what)


def references(x: Any) -> Iterator[str]:
    """The names of the values that a step takes."""
    if isinstance(x, dict):
        if list(x) == ["ref"]:
            yield x["ref"]
        for y in x.values():
            yield from references(y)
    elif isinstance(x, list | tuple):
        for y in x:
            yield from references(y)


def gap(theirs: Any, ours: Any, at: str = "") -> str:
    """Where two outcomes differ; an empty string if nowhere."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "error" in theirs and "error" in ours:
            missing = set(theirs["error"]) - set(ours["error"])
            return f"{at}: errors that no longer are {sorted(missing)}" if missing else ""
        if set(theirs) != set(ours):
            return f"{at}: {_family(theirs)} and {_family(ours)}"
        return next((what for key in theirs if (what := _entry(key, theirs[key], ours[key], at))), "")
    if isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            return f"{at}: {len(theirs)} and {len(ours)} entries"
        pairs = enumerate(zip(theirs, ours, strict=True))
        return next((what for i, (x, y) in pairs if (what := gap(x, y, f"{at}[{i}]"))), "")
    return "" if theirs == ours and type(theirs) is type(ours) else f"{at}: {theirs!r} and {ours!r}"


def _entry(key: str, theirs: Any, ours: Any, at: str) -> str:
    at = f"{at}.{key}"
    if key == "float":
        return "" if close(float(theirs), float(ours)) else f"{at}: {theirs} and {ours}"
    if key in ("tensor", "ndarray"):
        same = len(theirs) == len(ours) and all(
            close(float(x), float(y)) for x, y in zip(theirs, ours, strict=True)
        )
        return "" if same else f"{at}: other numbers"
    if key == "str":
        return "" if same_text(theirs, ours) else f"{at}: {theirs!r} and {ours!r}"
    return gap(theirs, ours, at)


def close(x: float, y: float) -> bool:
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or (
        math.isfinite(x) and math.isfinite(y) and abs(x - y) <= RELATIVE * (1.0 + max(abs(x), abs(y)))
    )


def same_text(theirs: str, ours: str) -> bool:
    """Colours, spaces at ends and digits of rounded numbers aside; any text for none of one's own."""
    if _DEFAULT_REPR.fullmatch(theirs):
        return True
    theirs, ours = (
        re.sub(r"\s+", " ", _COLOUR.sub("", text)).replace("</td> </tr>", "</td></tr>").strip()
        for text in (theirs, ours)
    )
    if _NUMBER.sub("0", theirs) != _NUMBER.sub("0", ours):
        return False
    pairs = zip(_NUMBER.findall(theirs), _NUMBER.findall(ours), strict=True)
    return all(abs(float(x) - float(y)) <= 1e-4 * (1 + abs(float(x))) or x == y for x, y in pairs)


def _family(x: dict[str, Any]) -> str:
    return ", ".join(f"{k} {_short(x[k])}" for k in x) or "nothing"


def _short(x: Any) -> str:
    text = json.dumps(x)
    return text if len(text) < 600 else f"{text[:400]} … {text[-150:]}"
