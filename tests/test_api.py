"""The front door: plain calls from scripts, running loops, threads and children; interruption; ending."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toy import EOS_STRING, TOY, ToyLM, ToyTokenizer

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState, ByteLM
from genlm.bytes.api import loop as api_loop
from genlm.bytes.api.loop import run
from genlm.bytes.errors import GenlmBytesError, InvalidTypeError, ModelUnavailableError
from genlm.bytes.models import load_model
from genlm.bytes.options import GenerationOptions, Options
from genlm.bytes.score import ScoringOptions

PARAMS = BeamParams(K=5, prune_threshold=0.01)
TESTS = Path(__file__).parent


class Waits(ToyLM):
    """A model that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(TOY)
        self.asked_for = threading.Event()
        self.cancelled = threading.Event()
        self.waits = True

    async def next_token_logprobs(self, token_ids, lora_name=None):
        if self.waits and len(token_ids) > 0:
            self.asked_for.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return await super().next_token_logprobs(token_ids)


class TestAsking:
    def test_everything_without_a_loop(self):
        with ByteLM(ToyLM(TOY, seed=5), PARAMS, eos=[EOS_STRING]) as lm:
            completion = lm.complete("ab", max_bytes=6)
            assert str(completion) == completion.text and len(completion.bytes) <= 6
            with lm.stream("ab", max_bytes=6) as stream:
                assert b"".join(chunk.bytes for chunk in stream) == completion.bytes
                assert stream.completion == completion
            p = lm.next("ab")
            assert p.materialize().argmax() == max(range(258), key=lambda b: p[b])
            assert list(p.chars(2)) == list(p.chars())[:2]
            assert isinstance(p.beam, ByteBeamState)
            beam = lm.beam(b"ab")
            assert lm.run(beam << ord("c")).logZ < beam.logZ
            assert "ToyLM" in repr(lm) and lm.params.K == 5 and lm.llm is lm.asynchronous.llm

    async def test_the_same_as_coroutines(self):
        plain = ByteLM(ToyLM(TOY, seed=5), PARAMS)
        async with AsyncByteLM(ToyLM(TOY, seed=5), PARAMS) as lm:
            assert await lm.complete("ab") == plain.complete("ab")  # and with a loop running here
            assert (await lm.next("ab")).ps.tolist() == plain.next("ab").ps.tolist()
            assert await (await lm.next("ab")).chars() == plain.next("ab").chars()
            assert (await lm.beam("ab")).logZ == plain.beam("ab").logZ
            assert [c async for c in lm.stream("ab")] == list(plain.stream("ab"))
            assert "ToyLM" in repr(lm)

    async def test_what_is_next_says_how_far_off_it_may_be(self):
        """As the beam's own distribution does; nothing where nothing is left out."""
        left_out = BeamParams(tolerance=0.2)
        for params in (left_out, BeamParams(exact=True)):
            plain = ByteLM(ToyLM(TOY, seed=5), params)
            async with AsyncByteLM(ToyLM(TOY, seed=5), params) as lm:
                found = await lm.next("ab")
                assert found.slack == (await found.beam.logp_next()).slack == plain.next("ab").slack
            assert found.slack is not None and (found.slack.expected > 0.0) == (params is left_out)

    def test_from_threads_at_once(self):
        lm = ByteLM(ToyLM(TOY, seed=5), PARAMS)
        want = [lm.complete("ab", seed=seed, max_bytes=8) for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda seed: lm.complete("ab", seed=seed, max_bytes=8), range(8)))
        assert got == want

    def test_options_are_the_same_in_both(self):
        def options(function):
            return {n: (p.default, p.kind) for n, p in inspect.signature(function).parameters.items()}

        for name in ("complete", "next", "beam", "from_pretrained", "stream", "special"):
            assert options(getattr(ByteLM, name)) == options(getattr(AsyncByteLM, name)), name
        assert options(ByteLM.__init__) == options(AsyncByteLM.__init__)

    def test_help_says_what_each_argument_is(self):
        """Of the plain class too, and not that it is said elsewhere."""
        for kind in (ByteLM, AsyncByteLM):
            documented = [(kind, kind.__init__), *inspect.getmembers(kind, inspect.isroutine)]
            for name, method in documented:
                if isinstance(name, str) and name[0] == "_":
                    continue
                text = inspect.getdoc(kind if name is kind else method) or ""
                for parameter in inspect.signature(method).parameters:
                    if parameter not in ("self", "cls", "coroutine"):
                        assert re.search(rf"^ *\**{parameter}: ", text, re.MULTILINE), (kind, name, parameter)
        assert "await" not in (ByteLM.parse_special.__doc__ or "")

    @pytest.mark.parametrize("method", ["complete", "stream", "score", "word_surprisal", "byte_logprobs"])
    def test_an_unknown_option(self, method):
        close = "method" if method[0] in "swb" and method != "stream" else "temperature"
        wrong = close.replace("m", "mm", 1)
        with pytest.raises(
            InvalidTypeError, match=f"`{wrong}` .* Did you mean `{close}`.*Known are .*method"
        ):
            getattr(ByteLM(ToyLM(TOY)), method)("ab", **{wrong: 1})
        with pytest.raises(InvalidTypeError, match="`zzz` is no option"):
            getattr(ByteLM(ToyLM(TOY)), method)("ab", zzz=1)

    @pytest.mark.parametrize("kind", [ByteLM, AsyncByteLM])
    def test_every_method_says_all_the_names_it_has(self, kind):
        """Before anything else is looked at: what is given beside it is wrong too."""
        lm = kind(ToyLM(TOY))
        for name, method in inspect.getmembers(kind, inspect.isroutine):
            if name[0] == "_" or name in ("from_pretrained", "special", "parse_special", "run", "close"):
                continue
            known = [p for p in inspect.signature(method).parameters if p not in ("self", "options")]
            if "options" in inspect.signature(method).parameters:
                known += ScoringOptions.__annotations__
            with pytest.raises(InvalidTypeError) as told:
                found = getattr(lm, name)(**dict.fromkeys(known[:1]), zzz=1)
                asyncio.run(found)
            assert str(told.value) == f"`zzz` is no option here. Known are {', '.join(known)}.", name

    def test_calls_that_do_not_fit(self):
        lm = ByteLM(ToyLM(TOY))
        for call, told in (
            (lambda: lm.expand("a", 0.1, 3, "byte", 5), "`expand` cannot be called so: too many positional"),
            (lambda: lm.complete(), "`complete` .* missing a required argument: 'prompt'"),
            (lambda: BeamParams(*range(20)), "`BeamParams` .* too many .* arguments are K, prune_threshold"),
            (lambda: lm.predict_words("a", word=lambda: 1), "^(?!.*cannot be called so)"),  # not our call
        ):
            with pytest.raises(TypeError, match=told):
                call()

    def test_settings_of_the_beam_are_given_as_such(self):
        for make in (
            ByteLM.from_pretrained,
            lambda **more: ByteLM(ToyLM(TOY), **more),
            ByteLM(ToyLM(TOY)).next,
        ):
            with pytest.raises(InvalidTypeError, match=r"`K` is no option .*`params=BeamParams\(K=…\)`"):
                make(K=5)
        with pytest.raises(InvalidTypeError, match=r"`exakt` .* Did you mean `exact`"):
            BeamParams(exakt=True)
        with pytest.raises(InvalidTypeError, match=r"`batchsize` .* Did you mean `batch_size`"):
            load_model(batchsize=1)

    @pytest.mark.parametrize("kind", [ByteLM, AsyncByteLM])
    @pytest.mark.parametrize("method", ["complete", "stream"])
    def test_help_shows_each_option_with_its_default_and_what_it_does(self, kind, method):
        shown = inspect.getdoc(getattr(kind, method))
        parameters = inspect.signature(getattr(kind, method)).parameters
        assert "options" not in parameters and "**options" not in shown
        defaults = {f.name: f.default for f in dataclasses.fields(Options)}
        for name in GenerationOptions.__annotations__:
            assert parameters[name].default == defaults[name]
            assert re.search(rf"^    {name}: \w", shown, re.MULTILINE), name
        assert "Returns:" in shown

    def test_each_option_is_one_of_the_checked_ones(self):
        names = [f.name for f in dataclasses.fields(Options)]
        assert names == [*GenerationOptions.__annotations__, "n", "best_of", "particles", "ess_threshold"]

    def test_no_model(self):
        with pytest.raises(InvalidTypeError, match="`llm` is 'gpt2'"):
            ByteLM("gpt2")
        with pytest.raises(ModelUnavailableError, match="no-such/model"):
            ByteLM.from_pretrained("no-such/model")

    async def test_no_model_in_a_coroutine(self):
        with pytest.raises(ModelUnavailableError, match="no-such/model"):
            await AsyncByteLM.from_pretrained("no-such/model")


class TestEnds:
    """Which tokens end a sequence, if the caller does not say."""

    def make(self, tokenizer_id=None, generation_id=None):
        lm = ToyLM(TOY)
        lm.tokenizer = ToyTokenizer(None, tokenizer_id)
        if generation_id is not None:
            config = type("Config", (), {"eos_token_id": generation_id})()
            lm.model = type("Model", (), {"generation_config": config})()
        return lm

    @pytest.mark.parametrize(
        ("tokenizer_id", "generation_id", "want"),
        [(None, None, set()), (6, None, {b"<e>"}), (6, [5, 6], {b"<e>", b"c"}), (None, 5, {b"c"})],
    )
    def test_the_models_own(self, tokenizer_id, generation_id, want):
        lm = self.make(tokenizer_id, generation_id)
        assert ByteLM(lm).params.eos_byte_strings == want
        assert ByteLM(lm, BeamParams(K=3)).params.eos_byte_strings == want

    def test_what_the_caller_says_counts(self):
        lm = self.make(6)
        assert ByteLM(lm, eos=[]).params.eos_byte_strings == set()
        assert ByteLM(lm, eos=[b"c"]).params.eos_byte_strings == {b"c"}
        given = BeamParams(K=3, eos_byte_strings=[b"b"])
        assert ByteLM(lm, given).params.eos_byte_strings == {b"b"}
        assert given.eos_byte_strings == {b"b"}


class TestLimits:
    @pytest.mark.parametrize("unit", ["token", "byte"])
    def test_a_prompt_that_is_too_long_for_the_model(self, unit):
        from tiny import LONGEST, transformer

        lm = ByteLM(transformer("gpt2"), PARAMS)
        with pytest.raises(ValueError, match=f"reads at most {LONGEST} tokens"):
            lm.complete("x" * 2 * LONGEST, unit=unit)

    @pytest.mark.parametrize("unit", ["token", "byte"])
    def test_a_model_that_forgets_goes_on(self, unit):
        from tiny import LONGEST, transformer

        lm = ByteLM(transformer("gpt2"), PARAMS, eos=[], max_context_length=8)
        completion = lm.complete("x" * (LONGEST - 2), max_bytes=12, unit=unit)
        assert (len(completion.bytes), completion.finish_reason) == (12, "length")
        assert all(len(state.lm_state.context) <= 8 for state in lm.beam("x" * LONGEST))


class TestInterruption:
    def test_an_interrupt_cancels_the_work_and_leaves_the_loop_clean(self):
        llm = Waits()
        lm = ByteLM(llm, PARAMS)

        def interrupt():
            llm.asked_for.wait()
            os.kill(os.getpid(), signal.SIGINT)

        # Where a shell runs the tests in the background, Python finds the signal ignored and leaves it so.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                lm.complete("ab")
        finally:
            signal.signal(signal.SIGINT, before)
        thread.join()
        assert llm.cancelled.wait(60)  # the model hears of it a few passes of the loop later
        llm.waits = False
        assert lm.complete("ab", max_bytes=3).usage.completion_bytes == 3
        assert run(others()) == set()

    @pytest.mark.parametrize("begun", [False, True])
    def test_an_interrupt_while_the_work_is_handed_over(self, begun, monkeypatch):
        """Before the waiting thread waits: nothing is left behind that the next call would wait for."""
        run(others())
        loop = api_loop._background().loop
        original, calls = loop.call_soon_threadsafe, []

        def interrupted(*args):
            calls.append(args)
            if len(calls) > 1 or begun:
                original(*args)
            if len(calls) == 1:
                raise KeyboardInterrupt

        llm = Waits()
        lm = ByteLM(llm, PARAMS)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lm.complete("ab")
        llm.waits = False
        assert lm.complete("ab", max_bytes=3).usage.completion_bytes == 3
        assert run(others()) == set()

    def test_a_stream_that_is_left_early_stops(self):
        lm = ByteLM(ToyLM(TOY, seed=5), PARAMS)
        with lm.stream("ab", max_bytes=50) as stream:
            next(stream)
        assert stream.completion is None
        assert list(stream) == []
        assert run(others()) == set()

    async def test_a_stream_is_read_once(self):
        stream = AsyncByteLM(ToyLM(TOY, seed=5), PARAMS).stream("ab", max_bytes=3)
        assert len([chunk async for chunk in stream]) > 0
        with pytest.raises(GenlmBytesError, match="can be read once"):
            await stream.collect()

    def test_an_error_in_a_mask_reaches_the_caller(self):
        def mask(text):
            raise LookupError("here")

        lm = ByteLM(ToyLM(TOY), PARAMS)
        with pytest.raises(LookupError, match="here"):
            lm.complete("ab", mask=mask)
        with pytest.raises(LookupError, match="here"):
            lm.complete(["ab", "b"], mask=mask)
        assert run(others()) == set()

    def test_one_prompt_that_fails_ends_the_batch(self):
        lm = ByteLM(ToyLM(TOY, seed=5), PARAMS)
        with pytest.raises(ValueError, match="no token of this model contains that byte"):
            lm.complete(["ab", "az", "b"], max_bytes=200)
        assert run(others()) == set()

    def test_a_call_from_within_is_refused_not_hung(self):
        lm = ByteLM(ToyLM(TOY), PARAMS)
        with pytest.raises(GenlmBytesError, match="own event loop"):
            lm.complete("ab", mask=lambda text: lm.complete("ab").bytes)


async def others() -> set[asyncio.Task[object]]:
    """Tasks of the background loop besides this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


class TestEnding:
    def test_closed_is_closed(self):
        lm = ByteLM(ToyLM(TOY), PARAMS)
        lm.complete("ab", max_bytes=2)
        lm.close()
        lm.close()
        with pytest.raises(GenlmBytesError, match="has been closed"):
            lm.complete("ab")

    @pytest.mark.parametrize(
        "end",
        [
            "",
            *(
                pytest.param(end, marks=pytest.mark.slow)
                for end in ("sys.exit(3)", "raise LookupError", "os.kill(os.getpid(), signal.SIGINT)")
            ),
        ],
    )
    def test_a_process_that_uses_it_ends(self, end):
        """However it ends, and although work is under way."""
        program = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(TESTS)!r})
from test_api import *
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
llm = Waits()
lm = ByteLM(llm, PARAMS)
threading.Thread(target=lambda: lm.complete("ab"), daemon=True).start()
llm.asked_for.wait()
llm.waits = False
print(len(lm.complete("ab", max_bytes=3).bytes), flush=True)
{end}
"""
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert said.stdout == "3\n"
        assert "Fatal" not in said.stderr and "never retrieved" not in said.stderr
        assert "Task was destroyed" not in said.stderr
        assert (said.returncode == 0) == (end == "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.slow
    def test_a_child_has_a_loop_of_its_own(self):
        program = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from test_api import *
lm = ByteLM(ToyLM(TOY, seed=5), PARAMS)
want = lm.complete("ab", max_bytes=4)
child = os.fork()
if not child:
    os._exit(0 if lm.complete("ab", max_bytes=4) == want else 1)
assert os.waitpid(child, 0)[1] == 0
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)
