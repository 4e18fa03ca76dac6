"""From a name to a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from molmopoint.errors import CheckpointError
from molmopoint.remote_code import check_kernels, refuse_trust, running_no_code
from molmopoint.segmentation.faces import family_of
from molmopoint.segmentation.segmenter import Segmenter

PUBLISHED_MODEL = "facebook/sam2.1-hiera-large"
"""What published J&F of pointing models was measured with."""


def load_segmenter(
    name_or_path: str | Path = PUBLISHED_MODEL,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> Segmenter:
    """A SAM 2 that draws masks around points, for `result.masks` and `tracks.masks`.

    One checkpoint serves pictures and clips, and is in memory once.

    Args:
        name_or_path: an id on the hub, or a folder: SAM 2, SAM 2.1 or EdgeTAM in the layout of transformers.
        device: by default the GPU if there is one, else the CPU.
        dtype: of the weights, as in transformers; float32 by default.
        revision: branch, tag or commit on the hub.
        **kwargs: further arguments of `from_pretrained`, such as `local_files_only`.

    Raises:
        CheckpointError: there is no such model, it is of another kind, weights are missing, or it needs code of its own.
    """
    import transformers

    folder = Path(name_or_path).expanduser()
    source = str(folder) if isinstance(name_or_path, Path) or folder.is_dir() else name_or_path
    kwargs |= {} if revision is None else {"revision": revision}
    refuse_trust(kwargs)
    safely = {**kwargs, "trust_remote_code": False}
    try:
        check_kernels(transformers.PretrainedConfig.get_config_dict(source, **kwargs)[0], source)
        with running_no_code(source):
            model_type = transformers.AutoConfig.from_pretrained(source, **safely).model_type
        family = family_of(model_type, source)
        is_video = model_type.endswith("_video")
        kind = getattr(transformers, family.video if is_video else family.still)
        with running_no_code(source):
            processor = (transformers.Sam2VideoProcessor if is_video else transformers.Sam2Processor).from_pretrained(source, **safely)
        placed = {**safely, "dtype": dtype or torch.float32, "use_safetensors": True}
        model, report = kind.from_pretrained(source, output_loading_info=True, **placed)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # how transformers says that files are missing or do not fit
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"expected a SAM 2 model at {source!r}, got: {reason}; check the name and the connection, or pass a folder that holds the files"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(f"expected all weights at {source!r}, got none of {', '.join(missing[:3])}; download the folder again")
    return Segmenter(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), processor)
