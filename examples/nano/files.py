"""The files around the weights: a tokenizer that knows our words, configuration and processor files, all in
the released layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from molmopoint.config import MolmoPointConfig
from molmopoint.data.synthetic import sample_scene
from molmopoint.tokens import RELEASED_TOKENS, point_text
from nano.cells import FRAME_WINDOW, PICTURE_WINDOW
from nano.settings import CROP, LOCATIONS, PATCH, Settings

VOCABULARY = 512
"""V, text tokens."""
ADDITIONAL = 32
"""A, special tokens of pictures and points, padded."""
POINT_TOKENS = 4096
"""Capacity of the extended vocabulary: image tokens, slots and cells of one input."""
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# How Qwen cuts text before merging: digits stand alone, a word keeps the character before it.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
{%- if (message['role'] != 'user') == (loop.index0 % 2 == 0) -%}
{{ raise_exception('Expected turns of user and assistant in alternation, the first one by the user') }}
{%- endif -%}
{%- if message['content'] is not string -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set seen.images = seen.images + 1 -%}{%- endif -%}
{%- if part['type'] == 'video' -%}{%- set seen.videos = seen.videos + 1 -%}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- for i in range(seen.images) -%}
{%- if seen.images > 1 -%}{{ 'Image ' ~ (i + 1) }}{%- endif -%}{{ '<|image|>' }}
{%- endfor -%}
{%- for i in range(seen.videos) -%}{{ '<|video|>' }}{%- endfor -%}
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- set words = namespace(started=false) -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- if words.started -%}{{ ' ' }}{%- endif -%}{{ part['text'] }}{%- set words.started = true -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'user' or not loop.last -%}{{ '<|im_end|>\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level merges over the words of our own questions and answers; every other text is spelled out in
    bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [END_OF_TEXT, TURN_START, TURN_END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    add_special_tokens(tokenizer, VOCABULARY)
    return wrap_tokenizer(tokenizer)


def add_special_tokens(tokenizer: Tokenizer, vocabulary: int, whole: tuple[str, ...] = ()) -> None:
    """Adds the tokens of turns, pictures and points behind the merges.

    Args:
        tokenizer: to be completed.
        vocabulary: text tokens, with the tokens of turns and those that are not used.
        whole: texts that are one token each, the last ones of the text tokens.
    """
    specials = [END_OF_TEXT, TURN_START, TURN_END]
    unused = vocabulary - len(specials) - len(whole) - tokenizer.get_vocab_size()
    specials += [f"|<EXTRA_TOKENS_{i}>|" for i in range(unused)]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in whole])
    additional = [*RELEASED_TOKENS, *(f"|<UNUSED_{i}>|" for i in range(ADDITIONAL - len(RELEASED_TOKENS)))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in additional])
    tokenizer.add_tokens(
        [AddedToken(point_text(i), special=False, normalized=False) for i in range(POINT_TOKENS)]
    )


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers has it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=TURN_END,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=8192,
    )


def _corpus() -> list[str]:
    """Texts of a few thousand scenes, drawn with the held-out pairs, which are words like any other."""
    texts = [
        "user\nImage 1 Image 2 assistant\nThere are none.",
        '<tracks coords="Track the Where is Show me Find ',
    ] * 200
    for i in range(1500):
        for query in sample_scene(np.random.default_rng([9, i])).queries:
            texts.append(f"user\nPoint to {query.prompt}")
            texts.append(f'<points coords="1">{query.label}</point>')
            texts.append(query.prompt)
            texts.append(f'Counting the <points coords="1">{query.label}</point> shows a total of 1.')
            texts.append(f"Point to the {query.label}")
    return texts


def nano_config(settings: Settings) -> MolmoPointConfig:
    """The configuration of nano."""
    return network_config(settings, CROP, VOCABULARY)


def network_config(settings: Any, crop: int, vocabulary: int) -> MolmoPointConfig:
    """The configuration of a small model.

    Args:
        settings: with the sizes of both towers.
        crop: side of a crop in pixels.
        vocabulary: text tokens.
    """
    vit_heads, text_heads = settings.vit_width // settings.head_dim, settings.text_width // settings.head_dim
    text = {
        "hidden_size": settings.text_width, "intermediate_size": settings.text_mlp, "num_hidden_layers": settings.text_layers,
        "num_attention_heads": text_heads, "num_key_value_heads": 1, "head_dim": settings.head_dim, "vocab_size": vocabulary,
        "additional_vocab_size": ADDITIONAL, "rope_theta": 10000.0, "max_position_embeddings": 8192,
    }  # fmt: skip
    vision = {
        "hidden_size": settings.vit_width, "intermediate_size": settings.vit_mlp, "num_hidden_layers": settings.vit_layers,
        "num_attention_heads": vit_heads, "num_key_value_heads": vit_heads, "head_dim": settings.head_dim,
        "image_default_input_size": [crop, crop], "image_patch_size": PATCH, "image_num_pos": (crop // PATCH) ** 2,
    }  # fmt: skip
    return MolmoPointConfig.from_dict({
        "text_config": text, "vit_config": vision, "adapter_config": {"vit_layers": [settings.vit_layers - 1, settings.vit_layers - 3]},
        "patch_embed_dim": settings.pointing_width, "patch_location": f"{LOCATIONS}x{LOCATIONS}", "patch_logit_scale": "dim",
        "max_turns": 1,
    })  # fmt: skip


def write_files(
    folder: Path, tokenizer: PreTrainedTokenizerFast, crop: int = CROP, max_crops: int = 1
) -> None:
    """Tokenizer and processor files; weights and config.json are written by `save_pretrained`.

    Args:
        folder: made if it is not there.
        tokenizer: of the model.
        crop: side of a crop in pixels.
        max_crops: most crops of a picture, the overview not counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    image = {
        "do_convert_rgb": True, "image_mean": [0.5] * 3, "image_processor_type": "MolmoPointImageProcessor", "image_std": [0.5] * 3,
        "max_crops": max_crops, "overlap_margins": [2, 2], "patch_size": PATCH, "pooling_size": [PICTURE_WINDOW] * 2,
        "processor_class": "MolmoPointProcessor", "resample": 2, "size": {"height": crop, "width": crop},
    }  # fmt: skip
    video = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "do_sample_frames": True,
        "frame_sample_mode": "uniform_last_frame", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_fps": 2, "num_frames": 32,
        "patch_size": PATCH, "pooling_size": [FRAME_WINDOW] * 2, "processor_class": "MolmoPointProcessor", "resample": 2,
        "rescale_factor": 1 / 255, "return_metadata": False, "sampling_fps": 2, "size": {"height": crop, "width": crop},
        "video_processor_type": "MolmoPointVideoProcessor",
    }  # fmt: skip
    processor = {
        "image_use_col_tokens": True, "processor_class": "MolmoPointProcessor", "use_frame_special_tokens": True,
        "use_low_res_token_for_global_crops": True, "use_single_crop_col_tokens": False, "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
    }  # fmt: skip
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in (TURN_END, END_OF_TEXT))
    generation = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    contents = {
        "preprocessor_config.json": image,
        "video_preprocessor_config.json": video,
        "processor_config.json": processor,
        "generation_config.json": generation,
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
