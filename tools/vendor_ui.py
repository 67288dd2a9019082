"""Put the libraries of the dashboard into the package: `tools/vendor_ui.py`; needs npm.

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
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "tools" / "vendor"
VENDOR = ROOT / "common" / "src" / "gaffer" / "ui" / "static" / "vendor"
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


def main() -> None:
    """Write the files, their licenses, and the manifest with their hashes."""
    with TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder)
        subprocess.run(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"), cwd=folder, check=True)
        modules = Path(folder, "node_modules")
        shutil.rmtree(VENDOR, ignore_errors=True)
        VENDOR.mkdir(parents=True)
        written: dict[str, str] = {}
        for name, (package, path) in FILES.items():
            written[name] = convert(name, (modules / package / path).read_text())
        for package in {package for package, _ in FILES.values()}:
            name = f"LICENSE.{package.replace('/', '-').removeprefix('@')}.txt"
            written[name] = (modules / package / "LICENSE").read_text()
        for name, text in written.items():
            (VENDOR / name).write_text(text)
        locked = json.loads((LOCK / "package-lock.json").read_text())["packages"]
        manifest = {
            "packages": {
                path.removeprefix("node_modules/"): {"version": entry["version"], "integrity": entry["integrity"]}
                for path, entry in sorted(locked.items())
                if path
            },
            "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(written.items())},
        }
        (VENDOR / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{len(written)} files in {os.path.relpath(VENDOR)}")


if __name__ == "__main__":
    main()
