#!/bin/sh
# Write constraints/*.txt: the releases, with hashes, that the image, .venv and CI install.
#
# Run it after changing a dependency, or to update to new releases. PYTHON selects an interpreter with uv installed.
set -eu
cd "$(dirname "$0")/.."

for set in build packages tests; do
    "${PYTHON:-python3}" -m uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
        --no-header --no-annotate --no-emit-package gaffer-common --no-emit-package gafferd \
        --no-emit-package gaffer-lookupd --no-emit-package gaffer-client \
        --output-file "constraints/$set.txt" "constraints/$set.in" >/dev/null
done
