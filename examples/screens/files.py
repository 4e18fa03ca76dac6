"""The files around the weights: a tokenizer that knows the words of our questions, and processor files, all in the released layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from nano.files import _WORDS as WORDS
from nano.files import ADDITIONAL, CHAT_TEMPLATE, END_OF_TEXT, POINT_TOKENS, TURN_END, TURN_START
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from molmopoint.config import MolmoPointConfig
from molmopoint.processing.grounding_answers import NOTHING_THERE
from molmopoint.screens.colours import COLOURS
from molmopoint.screens.icons import SYNONYMS
from molmopoint.screens.vocabulary import AREAS, NOUNS, STATES
from molmopoint.tokens import RELEASED_TOKENS, point_text
from screens import words
from screens.settings import CROP, LOCATIONS, MAX_CROPS, PATCH, WINDOW, ScreenSettings

_PLACES = (
    "first", "second", "third", "fourth", "fifth", "last", "leftmost", "rightmost", "topmost", "lowest", "in the left half",
    "in the right half", "in the top half", "in the bottom half", "next to", "beside",
)  # fmt: skip


def build_tokenizer(settings: ScreenSettings) -> PreTrainedTokenizerFast:
    """Byte-level merges over the words of our questions; capital letters do not count, and other text is spelled out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials, room = [END_OF_TEXT, TURN_START, TURN_END], settings.vocabulary - 4
    trainer = trainers.BpeTrainer(vocab_size=room, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    unused = room - tokenizer.get_vocab_size()
    names = [*specials, *(f"|<EXTRA_TOKENS_{i}>|" for i in range(unused))]
    special = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_special_tokens(special)
    # The answer about nothing keeps its capital letter.
    tokenizer.add_tokens([AddedToken(NOTHING_THERE, special=False, normalized=False)])
    names = [*RELEASED_TOKENS, *(f"|<UNUSED_{i}>|" for i in range(ADDITIONAL - len(RELEASED_TOKENS)))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken(point_text(i), special=False, normalized=False) for i in range(POINT_TOKENS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=TURN_END, eos_token=TURN_END, pad_token=END_OF_TEXT, model_max_length=8192
    )


def _corpus() -> list[str]:
    """Words of questions and answers. Names are left to their letters but for a few dozen: reading them is the point."""
    texts = [
        'user\nassistant\nImage 1 Image 2 <points coords="1">button</point> Point to the all every each Where is Find Show me Click on'
    ] * 300
    nouns = [word for noun in NOUNS.values() for word in (*noun.singular, *noun.plural)]
    icons = [word for icon, synonyms in SYNONYMS.items() for word in (icon, *synonyms)]
    states = [word for synonyms in STATES.values() for word in synonyms]
    places = [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "last",
        "leftmost",
        "rightmost",
        "topmost",
        "lowest",
        "in",
        "the",
        "left",
        "right",
        "top",
        "bottom",
        "half",
        "of",
        "next",
        "to",
        "beside",
    ]
    rng = np.random.default_rng(0)
    for word in (
        *nouns,
        *states,
        *COLOURS,
        *places,
        *AREAS.values(),
        "that is",
        "that are",
        "that says",
        "to the left of the",
        "in the row of",
    ):
        texts += [f"the {word} {word}"] * 60
    for word in icons:
        texts += [f"the {word} icon", f"the {word} icons", f"the {word} button"] * 20
    names = [name for names in (words.ACTIONS, words.FIELDS, words.OPTIONS, words.SECTIONS) for name in names]
    return texts + [f"the {name} button" for name in rng.permutation(names)]


def screens_config(settings: ScreenSettings) -> MolmoPointConfig:
    """The model's configuration."""
    vit_heads, text_heads = settings.vit_width // settings.head_dim, settings.text_width // settings.head_dim
    text = {
        "hidden_size": settings.text_width, "intermediate_size": settings.text_mlp, "num_hidden_layers": settings.text_layers,
        "num_attention_heads": text_heads, "num_key_value_heads": 1, "head_dim": settings.head_dim, "vocab_size": settings.vocabulary,
        "additional_vocab_size": ADDITIONAL, "rope_theta": 10000.0, "max_position_embeddings": 8192,
    }  # fmt: skip
    vision = {
        "hidden_size": settings.vit_width, "intermediate_size": settings.vit_mlp, "num_hidden_layers": settings.vit_layers,
        "num_attention_heads": vit_heads, "num_key_value_heads": vit_heads, "head_dim": settings.head_dim,
        "image_default_input_size": [CROP, CROP], "image_patch_size": PATCH, "image_num_pos": (CROP // PATCH) ** 2,
    }  # fmt: skip
    return MolmoPointConfig.from_dict({
        "text_config": text, "vit_config": vision, "adapter_config": {"vit_layers": [settings.vit_layers - 1, settings.vit_layers - 3]},
        "patch_embed_dim": settings.pointing_width, "patch_location": f"{LOCATIONS}x{LOCATIONS}", "patch_logit_scale": "dim",
    })  # fmt: skip


def write_files(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokenizer and processor files; weights and config.json are written by `save_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    image = {
        "do_convert_rgb": True, "image_mean": [0.5] * 3, "image_processor_type": "Molmo2ImageProcessor", "image_std": [0.5] * 3,
        "max_crops": MAX_CROPS, "overlap_margins": [2, 2], "patch_size": PATCH, "pooling_size": [WINDOW, WINDOW],
        "processor_class": "Molmo2Processor", "resample": 2, "size": {"height": CROP, "width": CROP},
    }  # fmt: skip
    video = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "do_sample_frames": True,
        "frame_sample_mode": "uniform_last_frame", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_fps": 2, "num_frames": 32,
        "patch_size": PATCH, "pooling_size": [3, 3], "processor_class": "Molmo2Processor", "resample": 2,
        "rescale_factor": 1 / 255, "return_metadata": False, "sampling_fps": 2, "size": {"height": CROP, "width": CROP},
        "video_processor_type": "Molmo2VideoProcessor",
    }  # fmt: skip
    processor = {
        "image_use_col_tokens": True, "processor_class": "Molmo2Processor", "use_frame_special_tokens": True,
        "use_low_res_token_for_global_crops": True, "use_single_crop_col_tokens": False, "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
    }  # fmt: skip
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in (TURN_END, END_OF_TEXT))
    generation = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    for name, content in (
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
        ("processor_config.json", processor),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
