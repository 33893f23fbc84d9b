"""Scoring a corpus over the machines of a Ray cluster, through Ray Data.

    from genlm.bytes.integrations.ray import score_corpus

    for score in score_corpus(texts, "HuggingFaceTB/SmolLM2-135M"):
        print(score.bits_per_byte)

Texts are cut into groups, a group is worked by one actor, and an actor has a model of its own, on a GPU if the
cluster has any. The results are those of one machine, in order: with `workers=0` the same groups are
scored in this process, without Ray. On machines of one kind, with as many threads, they agree in every digit;
elsewhere up to the round-off of the hardware.

An actor that dies, and a machine that is lost, take nothing along: Ray starts another actor, and the groups
that were on their way are worked again. A group on which one actor after another dies is an error, after
`retries` more attempts (`ray_tally.py`).

Without a cluster (none begun with `ray.init`, no `RAY_ADDRESS`, no `address`) one is begun on this machine, with
neither dashboard nor usage reports. The model is loaded where it runs: a name must be known there, a
folder be shared.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genlm.bytes.errors import GenlmBytesError, MissingDependencyError, bad_type, bad_value
from genlm.bytes.front.groups import GROUP, Asked, Result, cut, score_groups
from genlm.bytes.generate.options import whole_number
from genlm.bytes.integrations.ray_tally import Tally
from genlm.bytes.integrations.ray_workers import ColumnScorer, GroupScorer, loader

__all__ = ["score_corpus", "score_dataset"]

MOST_BLOCKS = 10_000
"""Tasks that a list of texts becomes at most. Each costs Ray some milliseconds and kilobytes."""

MOST_THREADS = 4
"""CPUs an actor, where nothing is said and there are no GPUs: small models gain little from more."""


def score_corpus(
    texts: Iterable[Any],
    model: Any = None,
    *,
    what: str = "bytes",
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    texts_per_group: int = GROUP,
    retries: int = 3,
    address: str | None = None,
    **options: Any,
) -> Iterator[Result]:
    """The result for each text, in order, as they are found.

    Args:
        texts: str or bytes; or mappings with `text` and, for that text, `context`, `words`, `spans`. They are
            read at once and kept by Ray, which writes to disk what memory cannot hold.
        model: a name or a folder, as of `ByteLM.from_pretrained`, None for the embedded model; or a function
            that returns a `ByteLM`, for all other settings:
            `functools.partial(ByteLM.from_pretrained, name, BeamParams(K=5), dtype="bfloat16")`.
        what: `"bytes"`: a `Score` each; `"words"`: the `WordSurprisals` of each.
        workers: how many actors; None takes one for each GPU, or for each `cpus_per_worker`; 0 works
            in this process, without Ray.
        cpus_per_worker: CPUs of an actor, and threads of torch; None takes 1 beside a GPU, else up to 4.
        gpus_per_worker: GPUs of an actor; None takes 1 where there are any.
        texts_per_group: texts that are scored together. Results depend on it in their last digits.
        retries: how often a group is worked again whose worker has died.
        address: of the cluster; see `ray.init`.
        **options: of `ByteLM.score`, or of `ByteLM.word_surprisal`.

    Raises:
        MissingDependencyError: Ray is not installed.
        GenlmBytesError: workers have died on one group too often.
        ValueError, TypeError: as of `ByteLM.score`, when the group of that text comes.
    """
    asked, load = Asked(what, options), loader(model)
    size = whole_number("texts_per_group", texts_per_group, 1) or GROUP
    if whole_number("workers", workers, 0) == 0:
        return score_groups(load(), texts, asked, size)
    return _corpus(texts, load, asked, size, address, workers, cpus_per_worker, gpus_per_worker, retries)


def _corpus(
    texts: Iterable[Any], load: Any, asked: Asked, size: int, address: str | None, *pool: Any
) -> Iterator[Result]:
    ray, options, common = _pool(address, load, asked, *pool)
    import pyarrow

    groups = [(first, pickle.dumps(group)) for first, group in cut(texts, size)]
    width = -(-len(groups) // MOST_BLOCKS) or 1
    schema = pyarrow.schema([("first", pyarrow.int64()), ("items", pyarrow.binary())])
    blocks = [
        pyarrow.table([list(column) for column in zip(*groups[i : i + width], strict=True)], schema=schema)
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
            results = pickle.loads(row["results"])
            if isinstance(results, Exception):
                raise results
            yield from results
    except ray.exceptions.RayError as error:
        raise GenlmBytesError(f"Ray could not score the texts: {_first_line(error)}") from error


def score_dataset(
    dataset: Any,
    model: Any = None,
    *,
    text: str = "text",
    columns: Mapping[str, str] | None = None,
    what: str = "texts",
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    texts_per_group: int = GROUP,
    retries: int = 3,
    **options: Any,
) -> Any:
    """A Ray Dataset of texts, scored: a Ray Dataset, computed when it is asked for, in the order of the first.

    That the order be kept is set in the dataset's own context. An error in a text is raised by Ray, when it
    comes to it: `on_impossible="inf"` keeps one byte from ending it all.

    Args:
        dataset: has a column of texts; all its columns are kept.
        model: as for `score_corpus`.
        text: the column of the texts.
        columns: columns of what a text has of its own, of `"context"`, `"words"` and `"spans"`:
            `{"context": "prompt"}`.
        what: `"texts"`: a row each, with `logprob` (natural, the end included if `end=True`), `end`, `bytes`,
            `chars`, `bits`, `bits_per_byte`, `bits_per_char`, `slack`; `"bytes"`: also `logprobs`, of each
            byte; `"words"`: a row each word, as of `WordSurprisal` without `text`.
        workers: as for `score_corpus`, but at least 1. Leave a CPU to what reads the dataset.
        cpus_per_worker: as for `score_corpus`.
        gpus_per_worker: as for `score_corpus`.
        texts_per_group: as for `score_corpus`; rows are put together into blocks of this size.
        retries: as for `score_corpus`.
        **options: of `ByteLM.score`, or of `ByteLM.word_surprisal`.

    Raises:
        MissingDependencyError: Ray is not installed.
        ValueError: an option out of range.
    """
    if what not in ("texts", "bytes", "words"):
        raise bad_value("what", what, "must be 'texts', 'bytes' or 'words'")
    unknown = set(columns or {}) - {"context", "words", "spans"}
    if unknown:
        raise bad_value("columns", min(unknown), "must be of 'context', 'words' and 'spans'")
    asked, load = Asked("words" if what == "words" else "bytes", options), loader(model)
    size = whole_number("texts_per_group", texts_per_group, 1) or GROUP
    _, pool, common = _pool(None, load, asked, workers, cpus_per_worker, gpus_per_worker, retries)
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
    address: str | None, load: Any, asked: Asked, workers: Any, cpus: Any, gpus: Any, retries: Any
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
    return ray, options, (load, asked, None if gpus else cpus, tally, retries)


def _started(address: str | None) -> Any:
    """Ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        message = 'Ray is not installed: pip install "genlm-bytes[ray]".'
        raise MissingDependencyError(message) from error
    if not ray.is_initialized():
        here = address is None and not os.environ.get("RAY_ADDRESS")
        local = {"include_dashboard": False} if here else {}
        ray.init(address, logging_level="warning", **local)
    return ray


def _in_order(dataset: Any) -> Any:
    dataset.context.execution_options.preserve_order = True
    return dataset


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
