"""Data: what users bring and the pictures we make ourselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.data.checking import check_records, parsed_rows
    from molmopoint.data.clips import sample_clip
    from molmopoint.data.importers import import_records
    from molmopoint.data.judging import sample_judgement
    from molmopoint.data.records import (
        Record,
        RecordPoint,
        parse_record,
        read_records,
        to_pixels,
        write_records,
    )
    from molmopoint.data.synthetic import sample_scene

__all__ = [
    "Record",
    "RecordPoint",
    "check_records",
    "import_records",
    "parse_record",
    "parsed_rows",
    "read_records",
    "sample_clip",
    "sample_judgement",
    "sample_scene",
    "to_pixels",
    "write_records",
]

_HOMES = {
    "Record": "records",
    "RecordPoint": "records",
    "check_records": "checking",
    "import_records": "importers",
    "parse_record": "records",
    "parsed_rows": "checking",
    "read_records": "records",
    "sample_clip": "clips",
    "sample_judgement": "judging",
    "sample_scene": "synthetic",
    "to_pixels": "records",
    "write_records": "records",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
