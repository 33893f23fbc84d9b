"""What the terminal shows while a model is made ready: our one bar, and nothing of the libraries below."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["STAGES", "Report", "progress_bar", "quiet"]

Report = Callable[[str, float], None]
"""Told the stage and the fraction of it that is done."""

# Where each stage begins and its share of the time, in percent, on a 100 Mbit/s line.
STAGES = {
    "waiting for another process": (0, 0),
    "downloading": (0, 30),
    "converting": (30, 60),
    "saving": (90, 10),
}


@contextmanager
def progress_bar(title: str, *, enabled: bool) -> Iterator[Report]:
    """A bar on stderr that is gone at the end; the function it yields moves it."""
    # Rich takes a tenth of a second, and a model that is there needs no bar.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    # The spinner and the clock turn in rich's own thread, so the bar is seen to live in the long steps.
    columns = (SpinnerColumn(), *Progress.get_default_columns()[:-1], TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not enabled) as bar:
        task = bar.add_task(title, total=100)

        def report(stage: str, fraction: float) -> None:
            start, share = STAGES[stage]
            done = start + share * min(1.0, fraction)
            bar.update(task, description=f"{title}: {stage}", completed=done)

        yield report


@contextmanager
def quiet(*, bars: bool) -> Iterator[None]:
    """Keep warnings of transformers off the terminal and, unless `bars`, its progress bars too."""
    logging: Any = import_module("transformers.utils.logging")
    hub: Any = import_module("huggingface_hub.utils")
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_had_none = hub.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        if not bars:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if had_bars:
                logging.enable_progress_bar()  # this and its opposite do the same to the bars of the hub
            (hub.disable_progress_bars if hub_had_none else hub.enable_progress_bars)()
