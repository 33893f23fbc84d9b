"""Files that are right after any end of what writes them, and that the same call goes on with."""

from genlm.bytes.resumable.growing import Growing
from genlm.bytes.resumable.locks import Locks
from genlm.bytes.resumable.manifest import Manifest
from genlm.bytes.resumable.output import Output
from genlm.bytes.resumable.whole import check_place, saying, write_whole

__all__ = [
    "Growing",
    "Locks",
    "Manifest",
    "Output",
    "check_place",
    "saying",
    "write_whole",
]
