"""What all tests share: annotations that are enforced, and one loaded real model."""

from __future__ import annotations

import doctest
import inspect
import os
from typing import Any

import annotations as enforced
import pytest
from budget import QUICK
from hypothesis import settings

if not (QUICK or os.environ.get("ANNOTATIONS_UNCHECKED")):  # which take two thirds of the time
    enforced.install()

from cli_runner import llm, lm, run  # noqa: F401  (fixtures; the hook has to be there before our modules)

# doctest takes a function for imported, and passes it over, unless it is the very one of the module.
_from_module = doctest.DocTestFinder._from_module  # type: ignore[attr-defined]


def _unwrapped_from_module(self: doctest.DocTestFinder, module: Any, thing: Any) -> bool:
    return bool(_from_module(self, module, inspect.unwrap(thing) if callable(thing) else thing))


doctest.DocTestFinder._from_module = _unwrapped_from_module  # type: ignore[attr-defined]

# The first example of a test may load or compile something; a deadline would time that, not us.
settings.register_profile(
    "here", deadline=None, derandomize=bool(os.environ.get("CI")), max_examples=20 if QUICK else 100
)
settings.load_profile("here")

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def no_clock():
    """What a model costs decides which contexts share a forward, and so last digits: no test times it."""
    from genlm.bytes.contexts.cost import UNKNOWN, CostMeter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CostMeter, "cost", UNKNOWN)
        yield


@pytest.fixture(scope="session")
def default_llm():
    """The embedded model, loaded once for the whole session."""
    from genlm.bytes.models import load_default_model

    return load_default_model(progress=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much the fuzzer has done, in all processes of the run."""
    counts: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in (r for r in reports if getattr(r, "when", None) == "call"):
            for name, value in getattr(report, "user_properties", ()):
                if name.startswith("fuzz: "):
                    counts[name] = counts.get(name, 0) + value
    if counts:
        from fuzz.worlds import VOCABULARIES

        done = ", ".join(f"{number:,} {name.removeprefix('fuzz: ')}" for name, number in counts.items())
        terminalreporter.write_line(f"fuzz, over {len(VOCABULARIES)} vocabularies: {done}")
