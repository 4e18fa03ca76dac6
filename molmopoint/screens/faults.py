"""What can go wrong with a page; it is counted, and the run goes on."""

from __future__ import annotations

from molmopoint.errors import MolmoPointError

KINDS = {
    "refused": "an address outside of this machine, without leave",
    "unreachable": "no page at the address",
    "slow": "the page did not finish in time",
    "crash": "the page or the browser ended by itself",
    "download": "the address is a file to save, not a page",
    "step": "a step of the script found nothing to act on",
    "broken": "the page cannot be read",
}
"""Kinds of faults."""


class PageFault(MolmoPointError):
    """A page that cannot be drawn.

    Attributes:
        kind: a key of `KINDS`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
