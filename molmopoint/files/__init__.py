"""Files: writing them whole or not at all, staying inside a folder, and opening pictures of known formats
only.

Everything here treats names and bytes as somebody else's: a name may lead out of its folder, a picture may be
a program.
"""

from molmopoint.files.names import CALIBRATION_FILE, inside_folder, is_file, is_folder, one_spelling
from molmopoint.files.pictures import (
    MAX_PICTURE_PIXELS,
    MAX_PIXELS_VARIABLE,
    PICTURE_FORMATS,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_picture_size,
    is_clip_file,
    max_picture_pixels,
    open_picture,
    picture_limit,
)
from molmopoint.files.whole import (
    check_writable,
    filled_whole,
    is_partial,
    process_runs,
    remove_leftovers,
    write_text_whole,
    written_whole,
)

__all__ = [
    "CALIBRATION_FILE",
    "MAX_PICTURE_PIXELS",
    "MAX_PIXELS_VARIABLE",
    "PICTURE_FORMATS",
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "check_picture_size",
    "check_writable",
    "filled_whole",
    "inside_folder",
    "is_clip_file",
    "is_file",
    "is_folder",
    "is_partial",
    "max_picture_pixels",
    "one_spelling",
    "open_picture",
    "picture_limit",
    "process_runs",
    "remove_leftovers",
    "write_text_whole",
    "written_whole",
]
