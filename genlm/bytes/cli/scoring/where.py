"""Where texts are scored: by one model in this process, or over a Ray cluster. The results are the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from genlm.bytes.cli.shared import Shared

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, Scoring, TextRecord

__all__ = ["Where"]

PANEL = "Many machines"


@dataclass(frozen=True)
class Where:
    """A cluster, and how much of it."""

    ray: Annotated[
        bool,
        typer.Option(
            "--ray", rich_help_panel=PANEL, help="Over a Ray cluster: the one at hand, or this machine."
        ),
    ] = False
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=PANEL, help="How many models; one a GPU, or a few CPUs, if not given."
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(rich_help_panel=PANEL, help="The cluster's address; RAY_ADDRESS if not given."),
    ] = None

    def check(self) -> None:
        """That what is for a cluster comes with `--ray`."""
        for name, given in (("--workers", self.workers), ("--ray-address", self.ray_address)):
            if given is not None and not self.ray:
                raise typer.BadParameter("needs --ray", param_hint=name)

    def scorer(
        self, shared: Shared, scoring: Scoring, ready: Callable[[], None]
    ) -> Callable[[Iterator[TextRecord]], Generator[ScoredText, None, None]]:
        """From texts to results in their order: the one place that knows where the work is done.

        Models are loaded when there is a text to score; then `ready` is called, over a cluster before.
        """

        def score(records: Iterator[TextRecord]) -> Generator[ScoredText, None, None]:
            first = next(records, None)
            if first is None:
                return
            records = chain([first], records)
            if self.ray:
                ready()
                yield from self._over_cluster(records, shared, scoring)
                return
            from genlm.bytes.cli.scoring.files import EVERY
            from genlm.bytes.score import score_groups

            with shared.model() as lm:
                ready()
                yield from score_groups(lm, records, scoring, EVERY)

        return score

    def _over_cluster(
        self, records: Iterator[TextRecord], shared: Shared, scoring: Scoring
    ) -> Iterator[ScoredText]:
        from genlm.bytes.cli.scoring.files import EVERY
        from genlm.bytes.integrations.ray import Pretrained, score_corpus

        model = Pretrained(shared.name, shared.params(), shared.device, shared.dtype)
        shared.remark("Ray starts a model on each worker.")
        return score_corpus(
            records, model, scoring, workers=self.workers, address=self.ray_address, texts_per_group=EVERY
        )
