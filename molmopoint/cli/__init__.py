"""The command line: `molmopoint point`, `molmopoint zoo`, `molmopoint doctor`.

Importing this package loads neither torch nor transformers, so `--help` is quick; the commands import what
they need.
"""

from molmopoint.cli.app import app, main

__all__ = ["app", "main"]
