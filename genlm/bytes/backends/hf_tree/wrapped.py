"""Models as people wrap them: compiled, hooked, with a forward of their own around the model's.

`torch.compile` would compile anew for nearly every forward over a tree, since each has a shape of its own,
and then give up. So our forwards run what was compiled as it was written; everybody else's run it compiled.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["accepted", "eagerly", "is_compiled", "unwrapped"]

WHOLE = {"input_ids", "position_ids", "past_key_values", "attention_mask", "use_cache", "logits_to_keep"}


def unwrapped(model: Any) -> Any:
    """The model that `torch.compile(model)` was given; any other as it is."""
    return vars(model).get("_modules", {}).get("_orig_mod", model)


def is_compiled(model: torch.nn.Module) -> bool:
    """Whether the model, or a part of it, is compiled when it is called."""
    return any(
        getattr(module, "_compiled_call_impl", None) is not None
        or "_orig_mod" in module._modules
        or hasattr(module.forward, "_torchdynamo_orig_callable")
        for module in model.modules()
    )


def eagerly(compiled: bool) -> AbstractContextManager[Any]:
    """While it is entered, what is compiled runs as it was written."""
    if not compiled or not hasattr(torch.compiler, "set_stance"):  # torch < 2.6
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def accepted(model: Any) -> set[str]:
    """The names that a model's forward takes.

    One that takes anything is somebody's wrapper: it takes what the model's class does. Where that says
    nothing either it is taken to pass everything on, and a trial shows whether it does.
    """
    for forward in (model.forward, type(model).forward):
        parameters = inspect.signature(forward).parameters
        if "input_ids" in parameters:
            return set(parameters)
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            return set(parameters)
    return WHOLE
