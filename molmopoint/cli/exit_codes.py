"""Exit codes of the command line; they are part of its interface."""

from __future__ import annotations

OK = 0
SOME_FAILED = 1
"""At least one picture could not be read, answered or drawn; each is named on stderr."""

USAGE = 2
"""Options that do not exist or do not fit each other; nothing was done. Also what the option parser uses."""

NO_MODEL = 3
"""The model could not be loaded; nothing was done."""

INTERRUPTED = 130
