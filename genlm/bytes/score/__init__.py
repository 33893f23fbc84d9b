"""How probable a text is, exactly where: bytes, characters, words, regions, distributions."""

from genlm.bytes.score.byte_scores import CharScores, Score
from genlm.bytes.score.choices import Choices, ChoicesTable
from genlm.bytes.score.corpus import Filling, RegionOptions, ScoredText, Scoring, TextRecord
from genlm.bytes.score.groups import score_groups, score_records
from genlm.bytes.score.joined import TableSurprisals
from genlm.bytes.score.pairs import PAIRS_AT_ONCE, Pair, PairTotals, ScoredPair, score_pairs
from genlm.bytes.score.scorer import ScoringOptions
from genlm.bytes.score.shards import read_shards
from genlm.bytes.score.table import WordSurprisal, WordSurprisals
from genlm.bytes.score.tokenizations import Cut, Tokenizations
from genlm.bytes.score.tokens import TokenLogprobs
from genlm.bytes.score.uncertainty import uncertainty_columns
from genlm.bytes.score.window import Window
from genlm.bytes.score.word_rows import Columns, WordRows, figure_names

__all__ = [
    "PAIRS_AT_ONCE",
    "CharScores",
    "Choices",
    "ChoicesTable",
    "Columns",
    "Cut",
    "Filling",
    "Pair",
    "PairTotals",
    "RegionOptions",
    "Score",
    "ScoredPair",
    "ScoredText",
    "Scoring",
    "ScoringOptions",
    "TableSurprisals",
    "TextRecord",
    "TokenLogprobs",
    "Tokenizations",
    "Window",
    "WordRows",
    "WordSurprisal",
    "WordSurprisals",
    "figure_names",
    "read_shards",
    "score_groups",
    "score_pairs",
    "score_records",
    "uncertainty_columns",
]
