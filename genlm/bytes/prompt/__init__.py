"""What stands before a text: strings, token ids, messages, a text with a hole; and reading it with a beam."""

from genlm.bytes.prompt.prompt import Prompt, is_batch, parse_context

__all__ = ["Prompt", "is_batch", "parse_context"]
