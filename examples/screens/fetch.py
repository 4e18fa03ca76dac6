"""Fetches UI kits and icons from the npm registry into a folder of their own, with `npm`; nothing of them
becomes part of the package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "bootstrap": "5.3.9",
    "bulma": "1.0.4",
    "fomantic-ui-css": "2.9.4",
    "spectre.css": "0.5.9",
    "uikit": "3.25.29",
    "@picocss/pico": "2.1.1",
    "bootstrap-icons": "1.13.2",
    "@tabler/icons": "3.52.0",
    "@material-design-icons/svg": "0.14.15",
    "@phosphor-icons/core": "2.1.1",
    "lucide-static": "1.62.0",
}
"""Packages and their versions; what a page looks like depends on them."""

LICENCES = ("Apache-2.0", "ISC", "MIT")
"""What their licences may be."""


def fetch_packages(cache: Path) -> dict[str, str]:
    """Installs the packages below `cache`, without running anything of theirs.

    Returns:
        The licence of each package, as it says itself.

    Raises:
        RuntimeError: npm is missing, or a package is of another licence than before.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("expected npm, got no such program; install Node.js")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "package.json").write_text(
        json.dumps({"private": True, "dependencies": PACKAGES}, indent=2) + "\n"
    )
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--omit=peer",
        "--loglevel=error",
    ]
    subprocess.run(command, cwd=cache, check=True)
    licences = {
        name: json.loads((cache / "node_modules" / name / "package.json").read_text())["license"]
        for name in PACKAGES
    }
    strange = {name: licence for name, licence in licences.items() if licence not in LICENCES}
    if strange:
        raise RuntimeError(
            f"expected licences {', '.join(LICENCES)}, got {strange}; look at the package before using it"
        )
    return licences
