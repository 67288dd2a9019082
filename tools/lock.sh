#!/bin/sh
# Write constraints/*.txt: the releases, with their hashes, that the image, .venv and CI install.
#
# Run it when a dependency changes, and to take up new releases. PYTHON names an interpreter that has uv.
set -eu
cd "$(dirname "$0")/.."

for set in build packages tests; do
    "${PYTHON:-python3}" -m uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
        --no-header --no-annotate --no-emit-package gaffer-common --no-emit-package gafferd \
        --no-emit-package gaffer-lookupd --no-emit-package gaffer-client \
        --output-file "constraints/$set.txt" "constraints/$set.in" >/dev/null
done
