"""The page at `/` and its files: shipped with the package, nothing made, nothing loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from genlm.bytes.serve.failures import Refusal

__all__ = ["router"]

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FILES = ("page.css", "page.js", "show.js", "icon.svg")
router = APIRouter()


@cache
def _content(name: str) -> bytes:
    return files("genlm.bytes.serve").joinpath("page", name).read_bytes()


def _file(name: str) -> Response:
    kind = KINDS[name.rpartition(".")[2]]
    return Response(_content(name), headers={"Cache-Control": "no-cache"}, media_type=kind)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return _file("index.html")


@router.get("/page/{name}", include_in_schema=False)
async def part(name: str) -> Response:
    """One of its files."""
    if name not in FILES:
        raise Refusal(404, "there is no such file.")
    return _file(name)
