"""Pages that commands write, each over nothing but another of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genlm.bytes.errors import bad_value

__all__ = ["Overwrite", "PageFile", "check_page", "write_page"]

PageFile = Annotated[
    Path | None, typer.Option(help="Write a page that needs nothing else, instead of showing anything.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Throw away what is there, if it is no such page.")
]


def check_page(path: Path, overwrite: bool) -> None:
    """That the page can be written, and over nothing but another page: said before a model is loaded."""
    from genlm.bytes.resumable import check_place
    from genlm.bytes.viz import page_opening

    check_place(path, "html", None if overwrite else page_opening().encode())


def write_page(path: Path, page: str) -> None:
    """Write it, whole or not at all."""
    from genlm.bytes.resumable import saying, write_whole

    with saying("cannot be written", lambda rule, _: bad_value("html", str(path), rule)):
        write_whole(path, page.encode())
