"""What a GPU does with the library: one script, parts that fail alone, results as they come.

    python3 benchmarks/gpu/run.py            # on a machine with CUDA: 3 to 4 minutes on an H100
    python3 benchmarks/gpu/run.py --tiny     # every line of it on a CPU, in a minute
    python3 benchmarks/gpu/run.py --parts forwards reading --models 1B

Tables go to stdout, and every figure to `gpu.jsonl` in `$OUT` (or here). It needs no network: weights are
random (`models.py`), the tokenizer lies in `.carry/tokenizer`, packages that the machine lacks in `.site`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve()
for folder in (HERE.parents[1], HERE.parents[2], HERE.parents[2] / ".site"):
    sys.path.insert(0, str(folder))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Run the parts asked for."""
    begun = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="small models, on the CPU")
    parser.add_argument("--parts", nargs="*")
    parser.add_argument("--models", nargs="*", default=["1B", "8B"])
    parser.add_argument("--seconds", type=float, default=270.0, help="begin no part after so many")
    given = parser.parse_args()
    faulthandler.dump_traceback_later(given.seconds + 120, exit=True)
    from gpu.parts import PARTS, Bench

    out = Path(os.environ.get("OUT", ".")) / "gpu.jsonl"
    with out.open("w", encoding="utf-8") as lines:

        def keep(part: str, **figures: object) -> None:
            seconds = round(time.perf_counter() - begun, 1)
            lines.write(json.dumps({"part": part, "at": seconds, **figures}, default=str) + "\n")
            lines.flush()
            shown = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
            print(f"[{seconds:6.1f}] {part}: {shown}", flush=True)

        bench = Bench(keep, tiny=given.tiny, models=["tiny"] if given.tiny else given.models)
        chosen = [(name, part) for name, part in PARTS.items() if not given.parts or name in given.parts]
        shared = [(name, part, "") for name, part in chosen if not part.per_model]
        of_models = [(name, part, m) for m in bench.models for name, part in chosen if part.per_model]
        for name, part, model in [*shared, *of_models]:
            if time.perf_counter() - begun > given.seconds:
                keep(name, model=model, skipped="the time is up")
                continue
            try:
                part.run(bench, *([model] if model else []))
            except Exception as error:
                keep(name, model=model, failed=f"{type(error).__name__}: {error}"[:500])
                print(traceback.format_exc()[-3000:], flush=True)
                if "CUDA error" in str(error):
                    break  # nothing works in this process any more


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_short(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={_short(one)}" for name, one in value.items()) + "}"
    return str(value)


if __name__ == "__main__":
    main()
