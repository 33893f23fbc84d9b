"""A corpus over a Ray cluster: two workers give what one process gives, whatever dies in between."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from toy import TOY, ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.cli import main
from genlm.bytes.errors import (
    GenlmBytesError,
    ImpossibleByteError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
)
from genlm.bytes.integrations import ray as ours
from genlm.bytes.integrations.ray_tally import Attempts, Tally
from genlm.bytes.integrations.ray_workers import (
    ColumnScorer,
    GroupScorer,
    Pretrained,
    PretrainedEnsemble,
    loader,
)
from genlm.bytes.score import RegionOptions, Scoring, TextRecord, score_groups

PARAMS = BeamParams(K=6)
WORDS = "the land and then a thin man in the end".split()
TEXTS = [" ".join(WORDS[i % 5 : i % 5 + 1 + i % 4]) + "." * (i % 3) for i in range(15)]
FATAL = TEXTS[9] + " and"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model on disk, as workers load theirs."""
    made = tmp_path_factory.mktemp("tiny-llama")
    tiny.model("llama").save_pretrained(made)
    tiny.tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def load(folder, one_thread):
    name = str(folder)
    return lambda: ByteLM.from_pretrained(name, PARAMS, device="cpu", progress=False)


@pytest.fixture(scope="module")
def one_thread():
    """As workers with one CPU: the number of threads shows in the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(found: list, wanted: list) -> bool:
    """In every digit."""
    assert [one.record for one in found] == [one.record for one in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a.score.text == b.score.text and np.array_equal(a.score.logprobs, b.score.logprobs)
        assert repr((a.score.end, a.score.slack)) == repr((b.score.end, b.score.slack))  # nan is nan
        assert repr(a.regions) == repr(b.regions)
    return True


def records(texts=TEXTS) -> list[TextRecord]:
    return [TextRecord(str(i), text.encode()) for i, text in enumerate(texts)]


class TestGroups:
    """What one process gives, which is what a cluster has to give."""

    def test_a_group_depends_on_nothing_before_it(self, load):
        asked = Scoring(end=True)
        every = list(score_groups(load(), records(), asked, 4))
        lm = load()
        lm.score("something else, read before")
        for first in (8, 4, 12, 4):
            found = list(score_groups(lm, records()[first : first + 4], asked, 4))
            assert same(found, every[first : first + 4])
        for one, plain in zip(every, load().score(TEXTS, end=True), strict=True):
            assert np.allclose(one.score.logprobs, plain.logprobs, atol=1e-4, rtol=0)

    def test_without_the_engine_there_is_less_to_forget(self):
        """Models that keep nothing of ours, as vLLM's, and those that were told to do without."""
        for lm in (
            ByteLM(tiny.transformer("llama"), PARAMS, engine=False),
            ByteLM(ToyLM(TOY, seed=1), PARAMS, eos=[b"<e>"]),
        ):
            (found,) = score_groups(lm, [TextRecord("0", b"ab")], Scoring())
            lm.forget()
            assert found.score.logprob == pytest.approx(lm.score("ab").logprob, abs=1e-5)

    def test_what_is_before_a_mistake_comes_first(self, load):
        """And then the mistake, once."""
        lm = ByteLM(load().llm, PARAMS, eos=[b"!"])
        found = score_groups(lm, records(["the man", "in!", "the end"]), Scoring())
        assert next(found).record.id == "0"
        with pytest.raises(InvalidValueError, match=r"text '1': .* at offset 2"):
            next(found)


class TestWithoutACluster:
    def test_no_workers_is_this_process(self, load):
        found = ours.score_corpus(TEXTS[:5], load, workers=0, texts_per_group=2)
        assert same(list(found), list(score_groups(load(), records(TEXTS[:5]), Scoring(), 2)))

    def test_what_is_wrong_is_said_at_once(self, load):
        for options in ({"workers": -1}, {"texts_per_group": 0}):
            with pytest.raises(InvalidValueError):
                ours.score_corpus(["a"], "no model is loaded", **options)
        with pytest.raises(InvalidTypeError, match="Pretrained"):
            ours.score_corpus(["a"], load())
        with pytest.raises(InvalidTypeError, match="`text 1"):
            list(ours.score_corpus(["a", 5], load, workers=0))
        words = Scoring(regions=RegionOptions(given="words"))
        for scoring, options in [
            (None, {"columns": {"words": "w"}}),
            (words, {}),
            (words, {"columns": {"words": "w"}, "bytewise": True}),
        ]:
            with pytest.raises(InvalidValueError, match=r"`(columns|bytewise)`"):
                ours.score_dataset(None, "model", scoring, **options)

    def test_what_is_asked_for_has_columns(self, load):
        """Entropy and rank, and each text after its own context; no cluster is needed to see it."""
        pyarrow = pytest.importorskip("pyarrow")
        asked = Scoring(regions=RegionOptions(entropy=True, rank=True, budget=2))
        columns = {"text": "body", "context": "before"}
        scorer = ColumnScorer(load, asked, columns=columns, what="words")
        table = scorer(pyarrow.table({"body": TEXTS[:2], "before": ["a ", None]}))
        given = [TextRecord(str(i), TEXTS[i].encode(), context=c) for i, c in enumerate(["a ", None])]
        rows = [row for one in score_groups(load(), given, asked) for row in one.regions]
        for name in ("word", "surprisal", "entropy", "word_entropy_most", "rank"):
            assert table.column(name).to_pylist() == [getattr(row, name) for row in rows]

    def test_without_ray(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingDependencyError, match=r"genlm-bytes\[ray\]"):
            list(ours.score_corpus(["a"], "model"))

    def test_errors_survive_the_way(self):
        back = pickle.loads(pickle.dumps(ImpossibleByteError("no", byte=7, offset=3, producible=False)))
        assert (str(back), back.byte, back.offset, back.producible) == ("no", 7, 3, False)

    def test_a_name_is_loaded_where_it_runs(self, folder):
        made = pickle.loads(pickle.dumps(loader(str(folder))))()
        assert made.score("the").logprob < 0

    def test_the_command_line(self, folder, monkeypatch, capfd, one_thread):
        """`--ray` changes where the work is done, and nothing else."""
        given = []

        def here(records, model, scoring, workers, address, texts_per_group):
            given.append((model, workers, address))
            return real(records, model, scoring, workers=0, texts_per_group=texts_per_group)

        def run(*more):
            line = ["genlm-bytes", "score", "the man", "--words", "--bits", "--model", str(folder)]
            monkeypatch.setattr(sys, "argv", [*line, "--device", "cpu", "--K", "6", *more])
            with pytest.raises(SystemExit) as ended:
                main()
            return ended.value.code, *capfd.readouterr()

        real = ours.score_corpus
        monkeypatch.setattr(ours, "score_corpus", here)
        _, plain, _ = run()
        _, over_ray, _ = run("--ray", "--workers", "2", "--ray-address", "here:1")
        # The last line has a rate, which is of a clock.
        assert over_ray.splitlines()[:-1] == plain.splitlines()[:-1] != []
        assert given == [(Pretrained(str(folder), PARAMS, "cpu"), 2, "here:1")]
        several = ["--model", str(folder), "--op", "sum", "--weights", "1,3"]
        _, together, _ = run("--ray", "--workers", "2", *several)
        made = given.pop()[0]
        assert made == PretrainedEnsemble([Pretrained(str(folder), PARAMS, "cpu")] * 2, "sum", [1.0, 3.0])
        columns = [row.split("\t")[6] for row in together.splitlines()[1:-1]]  # a model with itself is itself
        assert columns == [row.split("\t")[6] for row in plain.splitlines()[1:-1]]
        for option in (["--workers", "2"], ["--ray-address", "here:1"]):
            code, _, said = run(*option)
            assert code == 2 and "needs --ray" in said

    def test_the_tally(self):
        tally = Tally()
        assert tally.begin("one", "a") == 0  # it dies
        assert tally.begin("two", "a") == 0  # a group that is alike, on another worker
        attempts = Attempts(partial(tally.begin, "one"), partial(tally.end, "one"), retries=1)
        with attempts.of("a", "texts 1 to 2"):
            assert tally.begin("one", "a") == 2  # died on it again
        assert [tally.begin("one", "a"), tally.begin("one", "a")] == [0, 1]
        with (
            pytest.raises(GenlmBytesError, match="workers died on texts 1 to 2, 2 in a row"),
            attempts.of("a", "texts 1 to 2"),
        ):
            pytest.fail("begun all the same")
        assert tally.begin("one", "b") == 0


class TestActors:
    """By themselves, in this process, where coverage and the types of annotations are watched."""

    def test_of_groups(self, load):
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"group": [pickle.dumps(records(TEXTS[:3]))]})
        (packed,) = GroupScorer(load, Scoring(), 1)(table).column("results").to_pylist()
        found, error = pickle.loads(packed)
        assert error is None
        assert same(found, list(score_groups(load(), records(TEXTS[:3]), Scoring())))

    def test_of_an_ensemble(self, load, folder):
        """As one process has it, from names that are sent; what stands there twice is loaded once."""
        pyarrow = pytest.importorskip("pyarrow")
        one = Pretrained(str(folder), PARAMS, "cpu")
        made = pickle.loads(pickle.dumps(PretrainedEnsemble([one, str(folder), one], "mixture", [2, 1, 1])))
        first, second, third = made().asynchronous.members
        assert first is third and first.llm is not second.llm
        made = PretrainedEnsemble([one, one], contexts=["in ", ""])
        table = pyarrow.table({"group": [pickle.dumps(records(TEXTS[:3]))]})
        (packed,) = GroupScorer(made, Scoring(end=True), 1)(table).column("results").to_pylist()
        found, error = pickle.loads(packed)
        together = ByteLM.ensemble([load()] * 2, contexts=["in ", ""])
        assert error is None
        assert same(found, list(score_groups(together, records(TEXTS[:3]), Scoring(end=True))))
        with pytest.raises(InvalidValueError, match="`op` is 'some'"):
            PretrainedEnsemble([one, one], "some")
        with pytest.raises(InvalidTypeError, match="`model`"):
            PretrainedEnsemble([one, 5])

    def test_of_columns(self, load):
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"id": [1, 2], "t": ["the man", "an end"], "w": [["man"], ["an"]]})
        rows = ColumnScorer(load, Scoring(), 1, columns={"text": "t"}, what="bytes")(table).to_pylist()
        for row in rows:
            want = load().score(row["t"])
            assert row["logprobs"] == pytest.approx(want.logprobs.tolist(), abs=1e-4)
            assert row["logprob"] == pytest.approx(want.logprob, abs=1e-3) and row["end"] is None
            assert row["bytes"] == row["chars"] == len(row["t"])
        given = Scoring(regions=RegionOptions(given="words"))
        words = ColumnScorer(load, given, columns={"text": "t", "words": "w"}, what="words")
        assert [(row["id"], row["word"], row["start"]) for row in words(table).to_pylist()] == [
            (1, "man", 4),
            (2, "an", 0),
        ]
        none = words(table.slice(0, 0))
        assert none.num_rows == 0 and none.schema == words(table).schema
        with pytest.raises(InvalidValueError, match="has a column of this name"):
            words(table.append_column("word", pyarrow.array([1, 2])))
        with pytest.raises(InvalidValueError, match=r"among the dataset's: id, t, w"):
            ColumnScorer(load, Scoring(), columns={"text": "body"}, what="texts")(table)
        wrong = pyarrow.table({"t": ["the man"], "s": [[[0, 99]]]})
        spans = Scoring(regions=RegionOptions(given="spans"))
        with pytest.raises(InvalidValueError, match="text '0'"):
            ColumnScorer(load, spans, columns={"text": "t", "spans": "s"}, what="words")(wrong)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine with room for two workers and one more. Nothing of it needs a network."""
    ray = pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Workers import what this process imports, and nothing else: the tests go along by value.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=3, num_gpus=0, object_store_memory=80 * 2**20, include_dashboard=False)
    yield ray
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    patch.undo()


def mortal(load, marks: Path, deaths: int):
    """A model whose process dies by SIGKILL on the text `FATAL`, so many times in all."""

    def made():
        lm = load()
        score = lm.score

        def score_or_die(texts, *args, **options):
            died = len(list(marks.iterdir()))
            if FATAL.encode() in texts and died < deaths:
                (marks / str(died)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return score(texts, *args, **options)

        lm.score = score_or_die
        return lm

    return made


@pytest.mark.thorough
@pytest.mark.timeout(900)  # workers that die are begun anew, imports and all: minutes on a busy machine
@pytest.mark.filterwarnings(r"ignore:.*deprecated:DeprecationWarning:ray\.data\.")
class TestCluster:
    def test_a_worker_dies_and_nothing_is_lost(self, cluster, load, tmp_path):
        texts = [*TEXTS[:9], FATAL, *TEXTS[9:]]
        pool = {"workers": 2, "cpus_per_worker": 1, "texts_per_group": 4}
        asked = Scoring(end=True)
        found = list(ours.score_corpus(texts, mortal(load, tmp_path, 1), asked, **pool))
        assert len(list(tmp_path.iterdir())) == 1, "no worker has died"
        assert same(found, list(score_groups(load(), records(texts), asked, 4)))

    def test_a_group_that_kills_every_worker_is_an_error(self, cluster, load, tmp_path):
        """In its turn: what stands before it comes first."""
        found = ours.score_corpus(
            [*TEXTS[:2], FATAL],
            mortal(load, tmp_path, 3),
            workers=1,
            cpus_per_worker=1,
            texts_per_group=2,
            retries=0,
        )
        assert [next(found).record.id, next(found).record.id] == ["0", "1"]
        with pytest.raises(GenlmBytesError, match="workers died on texts '2' to '2', 1 in a row"):
            next(found)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_dataset(self, cluster, load):
        """Read in blocks of its own sizes; the groups, and so all digits, are those of one machine."""
        rows = [{"id": i, "body": text} for i, text in enumerate(TEXTS)]
        dataset = cluster.data.from_items(rows, override_num_blocks=5)
        dataset.context.enable_progress_bars = False
        pool = {"workers": 1, "cpus_per_worker": 1, "texts_per_group": 4}
        asked = Scoring(regions=RegionOptions(punctuation=True))
        found = ours.score_dataset(dataset, load, asked, text="body", **pool).take_all()
        names = ["word", "start", "surprisal", "naive"]
        assert [[row["id"], *(row[name] for name in names)] for row in found] == [
            [int(one.record.id), *(getattr(row, name) for name in names)]
            for one in score_groups(load(), records(), asked, 4)
            for row in one.regions
        ]
