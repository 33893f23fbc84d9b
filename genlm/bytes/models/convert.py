"""From GGUF, which transformers takes half a minute to read, to safetensors, which it reads in a second.

The copy is float32. Of the dequantised weights 58 % survive float16 unchanged and 21 % bfloat16 (scale
and offset are themselves float16, scale × integer + offset needs more digits), so halving the disk
space would give another model. The embedding is tied to the output layer and stored once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from genlm.bytes.models.progress import Report, quiet

__all__ = ["convert"]


def convert(gguf: Path, out: Path, report: Report) -> None:
    """Write the model and tokenizer of a GGUF file to the folder `out`, weights as float32."""
    report("converting", 0)
    with quiet(bars=False), _tensors_read(lambda done: report("converting", 0.3 + 0.7 * done)):
        hf: Any = import_module("transformers")
        source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = hf.AutoTokenizer.from_pretrained(gguf.parent, **source)
        report("converting", 0.3)
        model = hf.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype="float32", **source)
        # The model refuses to be saved because it believes that it is still quantised.
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
        report("saving", 0)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        # safetensors writes files that only their owner reads; a cache may be shared.
        shutil.copymode(out / "config.json", out / "model.safetensors")
        saved = hf.AutoTokenizer.from_pretrained(out, local_files_only=True)
        if saved.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
            raise RuntimeError("the saved tokenizer differs from the one in the GGUF file")


@contextmanager
def _tensors_read(report: Callable[[float], None]) -> Iterator[None]:
    """Hear of each tensor that transformers dequantises, in place of the bar that it would print.

    That bar heeds no setting, so we stand in for the module's `tqdm` meanwhile.
    """
    module: Any = import_module("transformers.modeling_gguf_pytorch_utils")

    def steps(items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        items = list(items)
        for done, item in enumerate(items):
            report(done / len(items))
            yield item

    original = module.tqdm
    module.tqdm = steps
    try:
        yield
    finally:
        module.tqdm = original
