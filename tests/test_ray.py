"""A corpus over a Ray cluster: two workers give what one process gives, whatever dies in between."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import (
    GenlmBytesError,
    ImpossibleByteError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
)
from genlm.bytes.front.groups import Asked, score_groups
from genlm.bytes.integrations import ray as ours
from genlm.bytes.integrations.ray_workers import ColumnScorer, GroupScorer, pack
from genlm.bytes.score import Score

PARAMS = BeamParams(K=6)
WORDS = "the land and then a thin man in the end".split()
TEXTS = [" ".join(WORDS[i % 5 : i % 5 + 1 + i % 4]) + "." * (i % 3) for i in range(26)]
FATAL = TEXTS[13] + "!"


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
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        if isinstance(a, Score):
            assert a.text == b.text and np.array_equal(a.logprobs, b.logprobs, equal_nan=True)
            assert (a.end, a.slack) == (b.end, b.slack)
        else:
            assert repr(a.records()) == repr(b.records())
    return True


class TestGroups:
    """What one process gives, which is what a cluster has to give."""

    def test_a_group_depends_on_nothing_before_it(self, load):
        asked = Asked("bytes", {"end": True})
        every = list(score_groups(load(), TEXTS, asked, 4))
        lm = load()
        lm.score("something else, read before")
        for first in (16, 4, 20, 4):
            group = TEXTS[first : first + 4]
            assert same(list(score_groups(lm, group, asked, 4, first)), every[first : first + 4])
        plain = load().score(TEXTS, end=True)
        for a, b in zip(every, plain, strict=True):
            assert np.allclose(a.logprobs, b.logprobs, atol=1e-4, rtol=0)

    def test_words_and_what_texts_have_of_their_own(self, load):
        items = [
            "the man",
            {"text": "and the end", "words": ["and", "end"]},
            {"text": "thin", "context": "a "},
            {"text": "the land", "spans": [(0, 2)]},
            "",
        ]
        lm = load()
        found = list(score_groups(lm, items, Asked("words", {"context": "so ", "boundary": "none"}), 2))
        assert [[row.word for row in rows] for rows in found] == [
            ["the", "man"],
            ["and", "end"],
            ["thin"],
            ["th"],
            [],
        ]
        assert [row.text for rows in found for row in rows] == [0, 0, 1, 1, 2, 3]
        (want,) = lm.word_surprisal("thin", context="a ", boundary="none")
        assert found[2][0].surprisal == pytest.approx(want.surprisal, abs=1e-4)

    def test_texts_come_one_group_at_a_time(self, load):
        taken = []
        found = score_groups(load(), (taken.append(text) or text for text in TEXTS), Asked(), 3)
        next(found)
        assert taken == TEXTS[:3]

    @pytest.mark.parametrize(
        ("items", "error", "says"),
        [
            ([5], InvalidTypeError, r"`texts\[0\]` is 5"),
            (["a", {"words": ["a"]}], InvalidValueError, r"`texts\[1\]`.* must have `text`"),
            ([{"text": "a", "colour": 1}], InvalidValueError, "nothing but"),
        ],
    )
    def test_what_is_not_understood(self, load, items, error, says):
        with pytest.raises(error, match=says):
            list(score_groups(load(), items, Asked()))
        with pytest.raises(InvalidValueError, match="`what`"):
            Asked("letters")
        with pytest.raises(InvalidValueError, match="each text has its own"):
            Asked("words", {"words": ["a"]})


class TestWithoutACluster:
    def test_no_workers_is_this_process(self, load):
        found = ours.score_corpus(TEXTS[:5], load, workers=0, texts_per_group=2)
        assert same(list(found), list(score_groups(load(), TEXTS[:5], Asked(), 2)))

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"what": "letters"}, InvalidValueError),
            ({"workers": -1}, InvalidValueError),
            ({"texts_per_group": 0}, InvalidValueError),
            ({"spans": [(0, 1)]}, InvalidValueError),
        ],
    )
    def test_what_is_wrong_is_said_at_once(self, options, error):
        with pytest.raises(error):
            ours.score_corpus(["a"], "no model is loaded", **options)

    def test_a_model_cannot_be_sent(self, load):
        with pytest.raises(InvalidTypeError, match=r"functools\.partial"):
            ours.score_corpus(["a"], load())

    def test_without_ray(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingDependencyError, match=r"genlm-bytes\[ray\]"):
            list(ours.score_corpus(["a"], "model"))

    def test_errors_survive_the_way(self):
        error = ImpossibleByteError("no", byte=7, offset=3, producible=False)
        back = pickle.loads(pack(error))
        assert (str(back), back.byte, back.offset, back.producible) == ("no", 7, 3, False)

        class LocalError(Exception):
            """Of a class that another process cannot find."""

        assert str(pickle.loads(pack(LocalError("why")))) == "LocalError: why"

    def test_the_actors_by_themselves(self, load):
        """In this process, where coverage and the types of annotations are watched."""
        pyarrow = pytest.importorskip("pyarrow")
        group = pyarrow.table({"first": [3], "items": [pickle.dumps(TEXTS[:2])]})
        packed = GroupScorer(load, Asked(), 1)(group).column("results").to_pylist()
        assert same(pickle.loads(packed[0]), list(score_groups(load(), TEXTS[:2], Asked())))
        wrong = pyarrow.table({"first": [0], "items": [pickle.dumps([3])]})
        (packed_error,) = GroupScorer(load, Asked(), None)(wrong).column("results").to_pylist()
        assert isinstance(pickle.loads(packed_error), InvalidTypeError)

        table = pyarrow.table({"id": [1, 2], "t": ["the man", "an end"], "c": ["", "so "]})
        columns = {"text": "t", "context": "c"}
        rows = ColumnScorer(load, Asked(), 1, columns=columns, what="bytes")(table).to_pylist()
        for row, context in zip(rows, ("", "so "), strict=True):
            want = load().score(row["t"], context)
            assert row["logprobs"] == pytest.approx(want.logprobs.tolist(), abs=1e-4)
            assert row["logprob"] == pytest.approx(want.logprob, abs=1e-3) and row["end"] is None
            assert (row["bytes"], row["chars"], row["c"]) == (len(row["t"]), len(row["t"]), context)
        words = ColumnScorer(load, Asked("words"), 1, columns={"text": "t"}, what="words")
        assert [(row["id"], row["word"], row["start"]) for row in words(table).to_pylist()] == [
            (1, "the", 0),
            (1, "man", 4),
            (2, "an", 0),
            (2, "end", 3),
        ]
        none = words(table.slice(0, 0))
        assert none.num_rows == 0 and none.schema == words(table).schema
        with pytest.raises(InvalidValueError, match="has a column of this name"):
            words(table.rename_columns(["id", "t", "word"]))
        with pytest.raises(InvalidValueError, match=r"among the dataset's: c, id, t"):
            ColumnScorer(load, Asked(), columns={"text": "body"}, what="texts")(table)


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
            if FATAL in texts and died < deaths:
                (marks / str(died)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return score(texts, *args, **options)

        lm.score = score_or_die
        return lm

    return made


@pytest.mark.filterwarnings(r"ignore:.*deprecated:DeprecationWarning:ray\.data\.")
class TestCluster:
    def test_a_worker_dies_and_nothing_is_lost(self, cluster, load, tmp_path):
        texts = [*TEXTS[:13], FATAL, *TEXTS[13:]]
        pool = {"workers": 2, "cpus_per_worker": 1, "texts_per_group": 4}
        found = list(ours.score_corpus(texts, mortal(load, tmp_path, 1), end=True, **pool))
        assert len(list(tmp_path.iterdir())) == 1, "no worker has died"
        assert same(found, list(ours.score_corpus(texts, load, workers=0, end=True, texts_per_group=4)))

    def test_a_group_that_kills_every_worker_is_an_error(self, cluster, load, tmp_path):
        found = ours.score_corpus(
            [*TEXTS[:4], FATAL],
            mortal(load, tmp_path, 99),
            workers=1,
            cpus_per_worker=1,
            texts_per_group=4,
            retries=1,
        )
        with pytest.raises(GenlmBytesError, match="2 workers have died on texts 4 to 4"):
            list(found)
        assert len(list(tmp_path.iterdir())) == 2

    def test_an_impossible_byte_is_raised_in_its_turn(self, cluster, load):
        """What stands before it comes first, as from one machine."""

        def ends():
            return ByteLM(load().llm, PARAMS, eos=[b"in"])

        texts = ["the man", "an end", "thin", "the end"]
        for workers in (0, 1):
            found = ours.score_corpus(texts, ends, workers=workers, cpus_per_worker=1, texts_per_group=2)
            assert [next(found).text, next(found).text] == [b"the man", b"an end"]
            with pytest.raises(ImpossibleByteError) as raised:
                next(found)
            assert raised.value.offset == 2

    def test_a_dataset(self, cluster, load):
        """Read in blocks of its own sizes; the groups, and so all digits, are those of one machine."""
        rows = [{"id": i, "body": text} for i, text in enumerate(TEXTS)]
        dataset = cluster.data.from_items(rows, override_num_blocks=5)
        dataset.context.enable_progress_bars = False
        pool = {"workers": 2, "cpus_per_worker": 1, "texts_per_group": 4}
        words = ours.score_dataset(dataset, load, text="body", what="words", punctuation=True, **pool)
        found = words.take_all()
        want = list(score_groups(load(), TEXTS, Asked("words", {"punctuation": True}), 4))
        names = ["id", "word", "start", "surprisal", "naive"]
        assert [[row[name] for name in names] for row in found] == [
            [row.text, row.word, row.start, row.surprisal, row.naive] for rows in want for row in rows
        ]
