"""Put the libraries of the dashboard and its tests in their places: `tools/vendor_ui.py`; needs npm.

`tools/vendor/package.json` names their releases, `package-lock.json` pins them by hash, and `npm ci` checks the hashes.
Browsers do not know bare imports (`from "preact"`), which are made relative here. The result is committed: neither
tests nor builds nor users need npm. For another release, edit `package.json`, run `npm install --package-lock-only`
there, then this.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "tools" / "vendor"
VENDOR = ROOT / "common" / "src" / "gaffer" / "ui" / "static" / "vendor"
TESTS = ROOT / "tests" / "support" / "vendor"  # never served
MANIFEST = "manifest.json"

FILES = {
    "preact.js": ("preact", "dist/preact.mjs"),
    "preact-hooks.js": ("preact", "hooks/dist/hooks.mjs"),
    "htm.js": ("htm", "dist/htm.module.js"),
    "signals-core.js": ("@preact/signals-core", "dist/signals-core.mjs"),
    "uplot.js": ("uplot", "dist/uPlot.iife.min.js"),
    "uplot.css": ("uplot", "dist/uPlot.min.css"),
    "xterm.js": ("@xterm/xterm", "lib/xterm.mjs"),
    "xterm.css": ("@xterm/xterm", "css/xterm.css"),
    "xterm-fit.js": ("@xterm/addon-fit", "lib/addon-fit.mjs"),
}
TEST_FILES = {"axe.js": ("axe-core", "axe.min.js")}  # run in a page as they are
IMPORTS = {"preact": "./preact.js"}
SUFFIX = {"uplot.js": "\nexport default uPlot;\n"}  # its small build is a script that sets one variable


def convert(name: str, text: str) -> str:
    """Return the text of a vendored file: with relative imports, without references to source maps.

    Raises ValueError if a bare import has no counterpart.
    """
    if name.endswith(".js"):
        text = re.sub(r"\n?//# sourceMappingURL=\S+", "", text)
        text = re.sub(r"(\bfrom\s*|\bimport\s*)([\"'])([^\"'./][^\"']*)\2", _relative, text)
    return text.rstrip("\n") + SUFFIX.get(name, "\n")


def _relative(match: re.Match[str]) -> str:
    module = match[3]
    if module not in IMPORTS:
        raise ValueError(f"bare import of {module!r}: add it to IMPORTS")
    return f'{match[1]}"{IMPORTS[module]}"'


def write(folder: Path, files: Mapping[str, tuple[str, str]], modules: Path, locked: Mapping[str, Any]) -> None:
    """Write `files` of the installed `modules`, their licenses, and the manifest with their hashes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {name: (modules / package / path).read_text() for name, (package, path) in files.items()}
    if folder == VENDOR:
        written = {name: convert(name, text) for name, text in written.items()}
    packages = sorted({package for package, _ in files.values()})
    for package in packages:
        name = f"LICENSE.{package.replace('/', '-').removeprefix('@')}.txt"
        written[name] = (modules / package / "LICENSE").read_text()
    for name, text in written.items():
        (folder / name).write_text(text)
    entries = {package: locked[f"node_modules/{package}"] for package in packages}
    manifest = {
        "packages": {
            package: {"version": entry["version"], "integrity": entry["integrity"]}
            for package, entry in entries.items()
        },
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(written.items())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{len(written)} files in {os.path.relpath(folder)}")


def main() -> None:
    """Install the releases of the lock file, and write the files of both folders."""
    with TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder)
        subprocess.run(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"), cwd=folder, check=True)
        locked = json.loads((LOCK / "package-lock.json").read_text())["packages"]
        modules = Path(folder, "node_modules")
        write(VENDOR, FILES, modules, locked)
        write(TESTS, TEST_FILES, modules, locked)


if __name__ == "__main__":
    main()
