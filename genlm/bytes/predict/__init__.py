"""What may come next, for those who choose: words, symbols of a set, the tree of bytes or characters."""

from genlm.bytes.predict.chars import ALPHABET, CharPredictions
from genlm.bytes.predict.tree import Expansion
from genlm.bytes.predict.word_rules import WORD
from genlm.bytes.predict.words import WordPrediction, WordPredictions

__all__ = ["ALPHABET", "WORD", "CharPredictions", "Expansion", "WordPrediction", "WordPredictions"]
