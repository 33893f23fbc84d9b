"""What `genlm-bytes score` is made of: texts in, rows out, files that can be gone on with."""

__all__: list[str] = []
