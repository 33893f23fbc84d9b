"""The evaluation harness: its requests answered, a task from files, boundaries, its command line."""

from __future__ import annotations

import json
import math

import pytest
import tiny
from brute import Brute
from toy import EOS_STRING, TOY, FixedLM, ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.engine import adopt
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.integrations import lm_eval as ours

EXACT = BeamParams(exact=True)


def answers(llm, **more):
    return ours.Answers(ByteLM(llm, EXACT, eos=[EOS_STRING]), **more)


class TestAnswers:
    def test_likelihoods_and_greed(self):
        llm = ToyLM(TOY, seed=5)
        brute = Brute(llm, eos=[EOS_STRING])
        pairs = [(c, t) for c in ("", "a", "ab") for t in ("a", "b", "c", "bc", "abc")]
        for (context, text), (logp, greedy) in zip(pairs, answers(llm).loglikelihoods(pairs), strict=True):
            before, plain = context.encode(), len(context)
            want = brute.prefix(before + text.encode(), plain) / brute.prefix(before, plain)
            assert logp == pytest.approx(math.log(want), abs=1e-9)
            steps = (brute.next(before + text[:i].encode(), plain) for i in range(len(text)))
            likeliest = [max(step, key=step.__getitem__) for step in steps]
            assert greedy == (likeliest == list(text.encode()))
        assert answers(llm).loglikelihoods([("a", "z")]) == [(-math.inf, False)]
        assert answers(llm).loglikelihoods([]) == []

    def test_rolling_over_a_long_document(self):
        lm = ByteLM(ToyLM(TOY, seed=2), BeamParams(K=4), eos=[EOS_STRING])
        texts = ["abcab" * 30, "abc"]
        lm.llm.asked.clear()
        found = ours.Answers(lm, window=32).rolling(texts)
        assert max(len(ids) for ids in lm.llm.asked) <= 32
        assert found[1] == lm.score("abc").logprob and found[0] < 10 * found[1] < 0

    def test_generation_stops_where_it_is_told(self):
        rest = answers(ToyLM(TOY, seed=5))
        long = rest.generate([("ab", {"until": [], "max_gen_toks": 6, "do_sample": False})])[0]
        assert long == str(rest.lm.complete("ab", max_tokens=6, temperature=0))
        stop = long[1:2]
        asked = {"until": ["", stop], "max_gen_toks": 6, "temperature": 0.0}
        assert rest.generate([("ab", asked)]) == [long[: long.index(stop)]]
        drawn = {"until": stop, "temperature": 1.0, "top_p": 0.9, "max_gen_toks": 3}
        assert stop not in rest.generate([("ab", drawn)])[0]

    def test_requests_share_forwards(self):
        """Contexts of all requests go out together, and the answers are those of each alone."""
        llm = tiny.transformer("llama")
        pairs = [("the ", "man"), ("an ", "end"), ("in ", "the"), ("and", " a"), ("a", "n")]
        asked = [(context, {"until": ["."], "max_gen_toks": 4}) for context, _ in pairs]
        alone = [ours.Answers(ByteLM(llm, BeamParams(K=4))) for _ in range(2)]
        greedy = [alone[0].loglikelihoods([pair])[0][1] for pair in pairs]
        texts = [alone[1].generate([one])[0] for one in asked]
        before = adopt(llm).statistics().forwards

        other = tiny.transformer("llama")
        rest = ours.Answers(ByteLM(other, BeamParams(K=4)))
        assert [likeliest for _, likeliest in rest.loglikelihoods(pairs)] == greedy
        assert rest.generate(asked) == texts
        assert adopt(other).statistics().forwards < before / 2

    def test_what_cannot_be_asked(self):
        with pytest.raises(InvalidValueError, match="`revision`"):
            ours.load(revision="v2")
        with pytest.raises(AttributeError):
            _ = ours.Nothing


WORDS = [b"x", b"y", b" cat", b" c", b"ow", b"at", b"<e>"]


def animals():
    """`x cow` in two tokens with a space in the first, `x cat` in one; after `y` the other way."""
    likely = {None: [0.45, 0.45], 0: [0, 0, 0.3, 0.6], 1: [0, 0, 0.6, 0.3], 3: [0, 0, 0, 0, 0.9]}

    def rule(context):
        p = [*likely.get(context[-1] if context else None, [0] * 6 + [0.9]), *[0.0] * len(WORDS)]
        return [share + 0.1 / len(WORDS) for share in p[: len(WORDS)]]

    return FixedLM(WORDS, rule=rule)


class TestHarness:
    @pytest.fixture(autouse=True)
    def harness(self, monkeypatch, tmp_path):
        pytest.importorskip("lm_eval")
        for name in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.setenv(name, str(tmp_path / "cache"))
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")

    @pytest.mark.filterwarnings("default")
    def test_a_task_from_files(self, tmp_path):
        """Multiple choice, whose prompts end inside a word."""
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        docs = [{"q": q, "gold": gold} for q, gold in [("x", 1), ("y", 0), ("x", 1)]]
        (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        (tmp_path / "pets.yaml").write_text(f"""
task: pets
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "docs.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}} c"
doc_to_choice: ["at", "ow"]
doc_to_target: gold
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""")
        model = ours.GenlmBytesLM(lm=ByteLM(animals(), EXACT, eos=[EOS_STRING]))
        results = simple_evaluate(
            model=model,
            tasks=["pets"],
            task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
            bootstrap_iters=0,
        )
        assert results["results"]["pets"]["acc,none"] == 1.0

    def test_registration(self):
        from lm_eval.api.registry import get_model

        ours.register()
        ours.register()
        assert get_model(ours.NAME) is ours.GenlmBytesLM

    def test_the_harness_own_boundary_handling_changes_the_answer(self):
        """`x cat` is two tokens, and so is the context `x c`: by tokens nothing is left of the continuation
        `at`, and nothing costs nothing. So it beats `ow`, which is twice as probable.
        """
        from lm_eval.api.instance import Instance
        from lm_eval.api.model import TemplateLM

        from genlm.bytes.byte_lm.guess import longest_tokens

        llm = animals()
        lm = ByteLM(llm, EXACT, eos=[EOS_STRING])
        trie = lm.beam().states[0].trie.trie

        class ByTokens(TemplateLM):
            """A model as the harness has them, which cuts context and continuation into tokens."""

            backend = "causal"
            eot_token_id = 6

            def tok_encode(self, string, add_special_tokens=None, **_):
                return list(longest_tokens(trie, string.encode()))

            def _loglikelihood_tokens(self, requests, **_):
                found = []
                for _pair, before, tokens in requests:
                    at = [llm.probs([*before, *tokens[:i]])[token] for i, token in enumerate(tokens)]
                    found.append((sum(map(math.log, at)), True))
                return found

            def loglikelihood_rolling(self, requests, **_):
                raise NotImplementedError

            def generate_until(self, requests, **_):
                raise NotImplementedError

        pairs = [("x c", "at"), ("x c", "ow")]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        at, ow = ByTokens().loglikelihood(requests, disable_tqdm=True)
        assert at[0] == 0.0 > ow[0]
        at, ow = ours.GenlmBytesLM(lm=lm).loglikelihood(requests)
        assert ow[0] > at[0] and at[1] is False and ow[1] is True
        brute = Brute(llm, eos=[EOS_STRING])
        share = brute.prefix(b"x cow", 3) / brute.prefix(b"x c", 3)
        assert ow[0] == pytest.approx(math.log(share), abs=1e-9)
