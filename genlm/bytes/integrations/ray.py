"""Scoring a corpus over the machines of a Ray cluster, through Ray Data.

    from genlm.bytes.integrations.ray import score_corpus

    for found in score_corpus(texts, "HuggingFaceTB/SmolLM2-135M"):
        print(found.score.bits_per_byte)

Texts are cut into groups, a group is worked by one actor, and an actor has a model of its own, on a GPU if
the cluster has any. The results are those of one machine, in order: `genlm.bytes.score.score_groups` gives
the same, as does `workers=0`. On machines of one kind, with as many threads, they agree in every digit;
elsewhere up to the round-off of the hardware.

An actor that dies, and a machine that is lost, take nothing along: Ray starts another actor, and the groups
that were on their way are worked again. A group on which one actor after another dies is an error, after
`retries` more attempts (`ray_tally.py`).

Without a cluster (none begun with `ray.init`, no `RAY_ADDRESS`, no `address`) one is begun on this machine,
with neither dashboard nor usage reports. The model is loaded where it runs: a name must be known there, a
folder be shared.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value, optional
from genlm.bytes.integrations.ray_tally import Tally
from genlm.bytes.integrations.ray_workers import (
    ColumnScorer,
    GroupScorer,
    Pretrained,
    PretrainedEnsemble,
    loader,
)
from genlm.bytes.score import ScoredText, Scoring, TextRecord, score_groups
from genlm.bytes.score.corpus import TEXTS, batches
from genlm.bytes.score.scorer import texts_of
from genlm.bytes.util.numbers import whole_number

__all__ = ["Pretrained", "PretrainedEnsemble", "score_corpus", "score_dataset"]

MOST_BLOCKS = 10_000
"""Tasks that a list of texts becomes at most. Each costs Ray some milliseconds and kilobytes."""

MOST_THREADS = 4
"""CPUs an actor, where nothing is said and there are no GPUs: small models gain little from more."""


def score_corpus(
    texts: Iterable[Any],
    model: Any = None,
    scoring: Scoring | None = None,
    *,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    texts_per_group: int = TEXTS,
    retries: int = 3,
    address: str | None = None,
) -> Iterator[ScoredText]:
    """The result for each text, in order, as they are found.

    Args:
        texts: str, bytes or `genlm.bytes.score.TextRecord`. They are read at once and kept by Ray, which
            writes to disk what memory cannot hold.
        model: a name or a folder, as of `ByteLM.from_pretrained`, None for the embedded model; or a function
            that returns a `ByteLM`, as `Pretrained(name, BeamParams(K=5), dtype="bfloat16")` is, or
            `PretrainedEnsemble([name, other], "mixture")`.
        scoring: what is asked of each; None for `genlm.bytes.score.Scoring()`, the bytes.
        workers: how many actors; None takes one for each GPU, or for each `cpus_per_worker`; 0 works
            in this process, without Ray.
        cpus_per_worker: CPUs of an actor, and threads of torch; None takes 1 beside a GPU, else up to 4.
        gpus_per_worker: GPUs of an actor; None takes 1 where there are any.
        texts_per_group: texts that are scored together, at most. Results depend on it in their last digits.
        retries: how often a group is worked again whose worker has died.
        address: of the cluster; see `ray.init`.

    Raises:
        MissingDependencyError: Ray is not installed.
        GenlmBytesError: workers have died on one group too often.
        ValueError: a text that cannot be scored, by its name. Those before it have been yielded.
        TypeError: a text of another type.
    """
    scoring, load = scoring or Scoring(), loader(model)
    size = whole_number("texts_per_group", texts_per_group, 1) or TEXTS
    records = _records(texts)
    if whole_number("workers", workers, 0) == 0:
        return score_groups(load(), records, scoring, size)
    return _corpus(records, load, scoring, size, address, workers, cpus_per_worker, gpus_per_worker, retries)


def _records(texts: Iterable[Any]) -> Iterator[TextRecord]:
    for i, text in enumerate(texts):
        yield (
            text if isinstance(text, TextRecord) else TextRecord(str(i), texts_of([text], f"text {i}")[0][0])
        )


def _corpus(
    records: Iterable[TextRecord], load: Any, scoring: Scoring, size: int, address: str | None, *pool: Any
) -> Iterator[ScoredText]:
    groups = [pickle.dumps(batch) for batch in batches(records, size)]
    ray, options, common = _pool(address, load, scoring, *pool)
    import pyarrow

    width = -(-len(groups) // MOST_BLOCKS) or 1
    blocks = [
        pyarrow.table({"group": pyarrow.array(groups[i : i + width], pyarrow.binary())})
        for i in range(0, len(groups), width)
    ]
    if not blocks:
        return
    dataset = _in_order(ray.data.from_blocks(blocks))
    dataset.context.enable_progress_bars = False
    found = dataset.map_batches(
        GroupScorer,
        fn_constructor_args=common,
        batch_size=1,
        batch_format="pyarrow",
        **options,
    )
    try:
        for row in found.iter_rows():
            results, error = pickle.loads(row["results"])
            yield from results
            if error is not None:
                raise error
    except ray.exceptions.RayError as error:
        raise GenlmBytesError(f"Ray could not score the texts: {_first_line(error)}") from error


def score_dataset(
    dataset: Any,
    model: Any = None,
    scoring: Scoring | None = None,
    *,
    text: str = "text",
    columns: Mapping[str, str] | None = None,
    bytewise: bool = False,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    texts_per_group: int = TEXTS,
    retries: int = 3,
) -> Any:
    """A Ray Dataset of texts, scored: a Ray Dataset, computed when asked for, in the order of the first.

    That the order be kept is set in the dataset's own context. An error in a text is raised by Ray, when it
    comes to it: `on_impossible="inf"` keeps one byte from ending it all.

    Args:
        dataset: has a column of texts; all its columns are kept.
        model: as for `score_corpus`.
        scoring: as for `score_corpus`. Without regions there is a row for each text, with `logprob` (natural,
            the end included if `end=True`), `end`, `bytes`, `chars`, `bits`, `bits_per_byte`,
            `bits_per_char`, `slack`, `above_one`, `error`; with regions a row for each region, with what a
            `WordSurprisal` has but `text`, entropies and ranks where they are asked for.
        text: the column of the texts.
        columns: the columns of what a text has of its own, `"words"` or `"spans"`, and `"context"`:
            `{"spans": "regions"}`.
        bytewise: whether there is also a column `logprobs`, of each byte.
        workers: as for `score_corpus`, as are all others, but at least 1. Leave a CPU to what reads the
            dataset.
        texts_per_group: rows are put together into blocks of this size.

    Raises:
        MissingDependencyError: Ray is not installed.
        ValueError: an option out of range.
    """
    scoring, load = scoring or Scoring(), loader(model)
    given = None if scoring.regions is None else scoring.regions.given
    if set(columns or ()) - {"context"} != {given} - {None}:
        rule = f"must name the column of {given!r}" if given else "goes with `RegionOptions(given=…)`"
        raise bad_value("columns", columns, rule)
    if bytewise and scoring.regions is not None:
        raise bad_value("bytewise", bytewise, "does not go with regions: a row is a region")
    what = "words" if scoring.regions is not None else "bytes" if bytewise else "texts"
    size = whole_number("texts_per_group", texts_per_group, 1) or TEXTS
    _, pool, common = _pool(None, load, scoring, workers, cpus_per_worker, gpus_per_worker, retries)
    groups = _in_order(dataset).repartition(target_num_rows_per_block=size, strict=True)
    return groups.map_batches(
        ColumnScorer,
        fn_constructor_args=common,
        fn_constructor_kwargs={"columns": {"text": text, **(columns or {})}, "what": what},
        batch_size=size,
        batch_format="pyarrow",
        **pool,
    )


def _pool(
    address: str | None, load: Any, scoring: Scoring, workers: Any, cpus: Any, gpus: Any, retries: Any
) -> tuple[Any, dict[str, Any], tuple[Any, ...]]:
    """Ray, what `map_batches` is told of its actors, and what all of them are made with."""
    workers, cpus = whole_number("workers", workers, 1), whole_number("cpus_per_worker", cpus, 1)
    retries = whole_number("retries", retries, 0) or 0
    if gpus is not None and (isinstance(gpus, bool) or not isinstance(gpus, int | float)):
        raise bad_type("gpus_per_worker", gpus, "must be a number")
    if gpus is not None and not gpus >= 0:
        raise bad_value("gpus_per_worker", gpus, "must not be negative")
    ray = _started(address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = sum(node.get("GPU", 0) for node in nodes)
    gpus = min(1, there) if gpus is None else gpus
    if cpus is None:  # one is left free on each machine, for what feeds the actors
        cpus = 1 if gpus else int(min(MOST_THREADS, max(1, min(node.get("CPU", 1) for node in nodes) - 1)))
    if workers is None:
        spare = sum(max(1, (node.get("CPU", 1) - 1) // cpus) for node in nodes)
        workers = max(1, int(there // gpus if gpus else spare))
    options = {
        "compute": ray.data.ActorPoolStrategy(size=workers),
        "num_cpus": cpus,
        "num_gpus": gpus,
    }
    tally = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally).remote()
    return ray, options, (load, scoring, None if gpus else cpus, tally, retries)


def _started(address: str | None) -> Any:
    """Ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, _ = (optional(name, "Scoring over a cluster", "'genlm-bytes[ray]'") for name in ("ray", "ray.data"))
    if not ray.is_initialized():
        here = address is None and not os.environ.get("RAY_ADDRESS")
        local = {"include_dashboard": False} if here else {}
        ray.init(address, logging_level="warning", **local)
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it tells of each step it takes
    return ray


def _in_order(dataset: Any) -> Any:
    dataset.context.execution_options.preserve_order = True
    return dataset


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
