"""The command line: parse, call, print."""

from genlm.bytes.cli.app import main

__all__ = ["main"]
