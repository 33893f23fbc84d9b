"""Where texts are scored: by one model in this process, or over a Ray cluster. The results are the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genlm.bytes.cli.shared import Shared

if TYPE_CHECKING:
    from genlm.bytes.cli.scoring.check import Check
    from genlm.bytes.score import ScoredText, Scoring, TextRecord

__all__ = ["Where"]


_option = partial(typer.Option, rich_help_panel="Many machines")


@dataclass(frozen=True)
class Where:
    """A cluster, and how much of it."""

    ray: Annotated[bool, _option("--ray", help="Over a Ray cluster: the one at hand, or this machine.")] = (
        False
    )
    workers: Annotated[
        int | None, _option(min=1, help="How many models; one a GPU, or a few CPUs, if not given.")
    ] = None
    ray_address: Annotated[str | None, _option(help="The cluster's address; RAY_ADDRESS if not given.")] = (
        None
    )

    def check(self) -> None:
        """That what is for a cluster comes with `--ray`."""
        for name, given in (("--workers", self.workers), ("--ray-address", self.ray_address)):
            if given is not None and not self.ray:
                raise typer.BadParameter("needs --ray", param_hint=name)

    def score(
        self,
        records: Iterator[TextRecord],
        shared: Shared,
        scoring: Scoring,
        ready: Callable[[], None],
        check: Check | None = None,
    ) -> Generator[ScoredText, None, None]:
        """The results of texts in their order: the one place that knows where the work is done.

        Models are loaded when there is a text to score; then `ready` is called, over a cluster before.
        """
        first = next(records, None)
        if first is None:
            return
        from genlm.bytes.cli.scoring.files import EVERY

        records = chain([first], records)
        if self.ray:
            from genlm.bytes.integrations.ray import Pretrained, PretrainedEnsemble, score_corpus

            ready()
            shared.remark("Ray starts a model on each worker.")
            params = shared.params()
            more: dict[str, Any] = {} if shared.start is None else {"start": shared.start}
            every = [
                Pretrained(name, params, shared.device, shared.dtype, options=more)
                for name in shared.every_name
            ]
            several = len(every) > 1
            model = PretrainedEnsemble(every, *shared.together()) if several else every[0]
            over = {"workers": self.workers, "address": self.ray_address, "texts_per_group": EVERY}
            yield from score_corpus(records, model, scoring, **over)  # type: ignore[arg-type]
            return
        from genlm.bytes.score import score_groups

        with shared.model() as lm:
            ready()
            scored = score_groups(lm, records, scoring, EVERY)
            yield from scored if check is None else check.follow(lm, scoring, scored)
