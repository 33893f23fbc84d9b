"""`python -m genlm.bytes`: the command line."""

from genlm.bytes.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
