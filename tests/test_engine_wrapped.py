"""Models as people have them: compiled, hooked, wrapped; heads in half precision; memory that runs out."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny
import torch

from genlm.bytes.backends.hf_tree.float32_head import Float32Head
from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.engine import Engine, adopt

CONTEXTS = [[3, 4, 5, 6], [3, 4, 7], [8], [3, 4, 5, 9]]


def rows(llm: Any) -> torch.Tensor:
    engine = Engine(llm)
    assert isinstance(engine.backend.runner, TreeModel)
    found: torch.Tensor = engine.batch_next_token_logprobs_sync(CONTEXTS)
    return found


@pytest.fixture
def want() -> torch.Tensor:
    return rows(tiny.transformer("llama"))


class TestWrappers:
    """Each runs over a tree, without a word."""

    def test_without_a_signature(self, want: torch.Tensor) -> None:
        llm = tiny.transformer("llama")
        forward = llm.model.forward
        llm.model.forward = lambda *args, **kwargs: forward(*args, **kwargs)
        torch.testing.assert_close(rows(llm), want)

    def test_a_module_around_the_model(self, want: torch.Tensor) -> None:
        class Around(torch.nn.Module):
            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner, self.config, self.device, self.dtype = (
                    inner,
                    inner.config,
                    inner.device,
                    inner.dtype,
                )

            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return self.inner(*args, **kwargs)

        llm = tiny.transformer("llama")
        llm.model = Around(llm.model).eval()
        torch.testing.assert_close(rows(llm), want)

    def test_hooks_are_called(self, want: torch.Tensor) -> None:
        llm, called = tiny.transformer("llama"), []
        llm.model.model.layers[0].register_forward_hook(lambda *_: called.append(1))
        torch.testing.assert_close(rows(llm), want)
        assert called

    def test_quantized(self) -> None:
        """Linear layers of another class, with weights that are no floats, as quantizers put in."""

        class Int8Linear(torch.nn.Module):
            def __init__(self, linear: torch.nn.Linear) -> None:
                super().__init__()
                self.scale = torch.nn.Buffer(linear.weight.detach().abs().amax(1, keepdim=True) / 127)
                weight = (linear.weight.detach() / self.scale).round().to(torch.int8)
                self.weight = torch.nn.Parameter(weight, requires_grad=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.linear(x, self.weight * self.scale)

        llm = tiny.transformer("llama")
        for name, module in list(llm.model.named_modules()):
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                llm.model.set_submodule(name, Int8Linear(module))
        with torch.no_grad():
            plain = [llm.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1) for ids in CONTEXTS]
        torch.testing.assert_close(rows(llm), torch.stack(plain), atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        "how",
        [
            pytest.param("wrapped", marks=pytest.mark.slow),
            "in place",
            pytest.param("its forward", marks=pytest.mark.slow),
            "a layer",
        ],
    )
    def test_compiled(self, want: torch.Tensor, how: str) -> None:
        """Nothing is compiled for us, and theirs is still compiled afterwards."""
        made: list[int] = []

        def backend(graph: Any, _: Any) -> Any:
            made.append(1)
            return graph.forward

        llm = tiny.transformer("llama")
        if how == "wrapped":
            llm.model = torch.compile(llm.model, backend=backend)
        elif how == "in place":
            llm.model.compile(backend=backend)
        elif how == "its forward":
            llm.model.forward = torch.compile(llm.model.forward, backend=backend)
        else:
            llm.model.model.layers[1].compile(backend=backend)
        torch.testing.assert_close(rows(llm), want)
        assert not made
        with torch.no_grad():
            llm.model(torch.tensor([[3, 4, 5]]))
        assert made


class TestFloat32Heads:
    @staticmethod
    def product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return rows.float() @ columns.float()

    @pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt_neox"])
    def test_less_is_rounded(self, kind: str) -> None:
        """Against the same model in float32 it is nearer, a final cap included; the model is as it was."""
        llm = tiny.transformer(kind, dtype=torch.bfloat16)
        engine = Engine(llm)
        rounded = engine.batch_next_token_logprobs_sync(CONTEXTS)
        runner = engine.backend.runner
        assert not runner._head, "on a CPU there is no such product"
        runner._head = Float32Head(llm.model, self.product)
        engine.clear_cache()
        found = engine.batch_next_token_logprobs_sync(CONTEXTS)
        assert 0 < (found - rounded).abs().max() < 0.2
        assert any(len(row.unique()) > len(other.unique()) for row, other in zip(found, rounded, strict=True))
        head = llm.model.get_output_embeddings()
        assert "forward" not in vars(head) and llm.model(torch.tensor([[3]])).logits.dtype == torch.bfloat16

    def test_only_in_this_thread(self) -> None:
        model = tiny.model("llama", dtype=torch.bfloat16)
        head, hidden, seen = model.get_output_embeddings(), torch.ones(1, 32, dtype=torch.bfloat16), []
        with torch.no_grad(), Float32Head(model, self.product).used():
            other = threading.Thread(target=lambda: seen.append(head(hidden).dtype))
            other.start()
            other.join()
            seen.append(head(hidden).dtype)
        assert seen == [torch.bfloat16, torch.float32]

    def test_what_is_left_alone(self) -> None:
        assert not Float32Head(tiny.model("llama"), self.product), "it has all digits"
        model = tiny.model("llama", dtype=torch.bfloat16)
        assert not Float32Head(model), "no such product here"
        model.lm_head = torch.nn.Sequential(model.lm_head)
        assert not Float32Head(model, self.product), "not a plain layer"
        assert not Float32Head(torch.nn.Linear(2, 2), self.product)

    def test_hooks_of_others_stay(self) -> None:
        model = tiny.model("llama", dtype=torch.bfloat16)
        head = model.get_output_embeddings()
        head.forward = usual = head.forward  # as accelerate does
        with Float32Head(model, self.product).used():
            assert head.forward is usual
        assert head.forward is usual

    def test_one_that_does_not_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The trial finds out, and the model's own head is used."""
        monkeypatch.setattr(
            "genlm.bytes.backends.hf_tree.forward.Float32Head",
            lambda model: Float32Head(model, lambda rows, columns: -self.product(rows, columns)),
        )
        llm = tiny.transformer("llama", dtype=torch.bfloat16)
        assert Engine(llm).backend.runner._head is None


class TestScores:
    @pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba"])
    async def test_numbers_are_those_of_rows(self, kind: str) -> None:
        llm = tiny.transformer(kind)
        engine = adopt(llm)
        path = [engine.node([3, 4, 5, 6, 7, 8][:n]) for n in range(1, 7)]
        found = [await engine.score(node, 9) for node in path]
        assert all(node.logps is None for node in path), "no rows are kept"
        engine.clear_cache()
        for node, score in zip(path, found, strict=True):
            assert score == pytest.approx(float((await engine.logprobs(node))[9]), abs=1e-4)
            assert await engine.score(node, 9) == float(node.logps[9])

    def test_one_forward(self) -> None:
        """Rows and numbers asked for together; several numbers after one context."""
        from genlm.bytes.contexts.backend import Score

        engine = Engine(tiny.transformer("llama"))
        a, b, c = (engine.node([3, 4, 5][:n]) for n in (1, 2, 3))
        before = engine.statistics().forwards
        row, *numbers = engine.backend.scores([c], [Score(a, 4), Score(a, 7), Score(b, 5)])
        assert engine.statistics().forwards == before + 1
        want = [engine._logprobs_sync([n])[0] for n in (a, a, b, c)]
        torch.testing.assert_close(row, want[3])
        for number, (at, token) in zip(numbers, [(0, 4), (0, 7), (2, 5)], strict=True):
            assert number == pytest.approx(float(want[at][token]), abs=1e-5)

    async def test_nan_is_somebodys_own(self) -> None:
        from genlm.bytes.errors import ModelOutputError

        llm = tiny.transformer("llama")
        engine = Engine(llm)
        with torch.no_grad():
            llm.model.get_input_embeddings().weight[9] = torch.nan
        good = engine.score(engine.node([3, 4]), 5)
        bad = engine.score(engine.node([3, 9]), 5)
        import asyncio

        found = await asyncio.gather(good, bad, return_exceptions=True)
        assert isinstance(found[0], float) and isinstance(found[1], ModelOutputError)


class TestMemoryRunsOut:
    def test_half_as_many(self, monkeypatch: pytest.MonkeyPatch, want: torch.Tensor) -> None:
        engine = Engine(tiny.transformer("llama"))
        forward, sizes = TreeModel.forward, []

        def little(self: TreeModel, new: Any, wanted: Any) -> Any:
            sizes.append(len(new))
            if len(new) > 2:
                raise torch.cuda.OutOfMemoryError("no room")
            return forward(self, new, wanted)

        monkeypatch.setattr(TreeModel, "forward", little)
        torch.testing.assert_close(engine.batch_next_token_logprobs_sync(CONTEXTS), want)
        assert max(sizes[2:]) <= 3 and engine.backend._fit <= 2

    def test_not_even_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = Engine(tiny.transformer("llama"))

        def none(*_: Any) -> Any:
            raise torch.cuda.OutOfMemoryError("no room")

        monkeypatch.setattr(TreeModel, "forward", none)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            engine.next_token_logprobs_sync([3, 4])
