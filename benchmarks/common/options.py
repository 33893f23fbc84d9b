"""What can be asked of a benchmark on the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Options of `run.py`. A benchmark uses those that concern it."""

    rounds: int | None = None
    release_rounds: int = 1
    rows: str = ""
    resume: bool = False
    keep_release: bool = False
    device: str = "cpu"
    model: str = "smollm2"
    K: int = 5
    scale: float = 1.0
    release: bool = False
    over_http: bool = False

    @property
    def words(self) -> str:
        """Those that were given, as on the command line; not those that only say what to run anew."""
        found = []
        for option in fields(self):
            name, value = f" --{option.name.replace('_', '-')}", getattr(self, option.name)
            if value != option.default and option.name not in ("rows", "resume", "keep_release"):
                found.append(name if value is True else f"{name} {value}")
        return "".join(found)
