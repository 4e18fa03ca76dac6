"""What a check of a data set found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Severity = Literal["fault", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: "fault" is refused by training or spoils it; "note" is for a person to judge.
        kind: short name, the same for the same problem.
        row: number of the row, from 1; None where it is the whole data set.
        message: what is there and what to do.
    """

    severity: Severity
    kind: str
    row: int | None
    message: str


@dataclass
class Report:
    """Findings and figures of a data set.

    Attributes:
        rows: rows read, faulty ones included.
        pictures: different picture files named.
        clips: different video files named.
        points: points in all rows.
        rows_without_points: rows that say there is nothing to point at.
        labels: rows per label, most frequent first; rows with a prompt alone are not in it.
        tokens: tokens of each row, where they were counted.
        findings: in the order of the rows, those of the whole data set last.
    """

    rows: int = 0
    pictures: int = 0
    clips: int = 0
    points: int = 0
    rows_without_points: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that must be put right."""
        return [finding for finding in self.findings if finding.severity == "fault"]

    @property
    def notes(self) -> list[Finding]:
        """Findings to judge."""
        return [finding for finding in self.findings if finding.severity == "note"]

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def fault(self, kind: str, row: int | None, message: str) -> None:
        """Adds a fault."""
        self.findings.append(Finding("fault", kind, row, message))

    def note(self, kind: str, row: int | None, message: str) -> None:
        """Adds a note."""
        self.findings.append(Finding("note", kind, row, message))

    def kinds(self) -> dict[str, int]:
        """Number of findings of each kind, faults first, the most frequent first within."""
        counts = Counter((finding.severity, finding.kind) for finding in self.findings)
        return {kind: count for (_, kind), count in sorted(counts.items(), key=lambda entry: (entry[0][0], -entry[1]))}

    def token_summary(self) -> dict[str, float] | None:
        """Least, middle, 95th of a hundred and most tokens of a row; None where they were not counted."""
        if not self.tokens:
            return None
        low, middle, high, top = np.percentile(self.tokens, [0, 50, 95, 100])
        return {"min": float(low), "median": float(middle), "p95": float(high), "max": float(top), "total": float(sum(self.tokens))}

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "pictures": self.pictures,
            "clips": self.clips,
            "points": self.points,
            "rows_without_points": self.rows_without_points,
            "labels": self.labels,
            "tokens": self.token_summary(),
            "faults": [_finding_fields(finding) for finding in self.faults],
            "notes": [_finding_fields(finding) for finding in self.notes],
        }


def _finding_fields(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "row": finding.row, "message": finding.message}
