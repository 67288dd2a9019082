#!/bin/sh
# Run the tests marked as pure on each further Python version that is installed, in an environment .venv-VERSION.
#
#   tools/pure.sh venv         only create or update the environments
#   tools/pure.sh ARGUMENTS    pass them to pytest
set -eu
cd "$(dirname "$0")/.."

# The mark is set for whole files; only these are imported.
files=$(grep -rl --include='test_*.py' '^pytestmark = pytest.mark.pure$' tests)

for version in 3.12 3.13; do
    found=
    for python in "${HOME-}/.pyenv/versions/$version".*/bin/python "python$version"; do
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            found=$python
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "Python $version: skipped, not installed"
        continue
    fi
    echo "Python $version: $found"
    PYTHON=$found VENV=.venv-$version tools/venv.sh tests
    if [ "${1-}" = venv ]; then continue; fi
    ".venv-$version/bin/pytest" -q -n logical --dist loadfile -m pure "$@" $files
done
