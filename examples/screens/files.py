"""The files around the weights: a tokenizer that knows the words of our questions, and processor files, all
in the released layout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nano.files import (
    END_OF_TEXT,
    TURN_END,
    TURN_START,
    WORDS,
    add_special_tokens,
    network_config,
    wrap_tokenizer,
)
from nano.files import write_files as write_files_of_size
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from molmopoint.config import MolmoPointConfig
from molmopoint.processing.grounding_answers import NOTHING_THERE
from molmopoint.screens.colours import COLOURS
from molmopoint.screens.icons import SYNONYMS
from molmopoint.screens.vocabulary import AREAS, NOUNS, STATES
from screens import words
from screens.settings import CROP, MAX_CROPS, ScreenSettings

_PLACES = (
    "first", "second", "third", "fourth", "fifth", "last", "leftmost", "rightmost", "topmost", "lowest", "in", "the", "left", "right",
    "top", "bottom", "half", "of", "next", "to", "beside",
)  # fmt: skip
_PHRASES = ("that is", "that are", "that says", "to the left of the", "in the row of")
_FRAME = 'user\nassistant\nImage 1 Image 2 <points coords="1">button</point> Point to the all every each Where is Find Show me Click on'


def build_tokenizer(settings: ScreenSettings) -> PreTrainedTokenizerFast:
    """Byte-level merges over the words of our questions; capital letters do not count, and other text is
    spelled out.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    whole = (NOTHING_THERE,)  # the answer about nothing keeps its capital letter
    room = settings.vocabulary - len((END_OF_TEXT, TURN_START, TURN_END)) - len(whole)
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    add_special_tokens(tokenizer, settings.vocabulary, whole)
    return wrap_tokenizer(tokenizer)


def _corpus() -> list[str]:
    """Words of questions and answers. Names are left to their letters but for a few dozen: reading them is
    the point.
    """
    nouns: list[str] = []
    for noun in NOUNS.values():
        nouns += [*noun.singular, *noun.plural]
    states: list[str] = []
    for synonyms in STATES.values():
        states += synonyms
    icons: list[str] = []
    for icon, synonyms in SYNONYMS.items():
        icons += [icon, *synonyms]
    names = [*words.ACTIONS, *words.FIELDS, *words.OPTIONS, *words.SECTIONS]

    texts = [_FRAME] * 300
    for word in (*nouns, *states, *COLOURS, *_PLACES, *AREAS.values(), *_PHRASES):
        texts += [f"the {word} {word}"] * 60
    for word in icons:
        texts += [f"the {word} icon", f"the {word} icons", f"the {word} button"] * 20
    texts += [f"the {name} button" for name in np.random.default_rng(0).permutation(names)]
    return texts


def screens_config(settings: ScreenSettings) -> MolmoPointConfig:
    """The model's configuration."""
    return network_config(settings, CROP, settings.vocabulary)


def write_files(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokenizer and processor files; weights and config.json are written by `save_pretrained`."""
    write_files_of_size(folder, tokenizer, CROP, MAX_CROPS)
