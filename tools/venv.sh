#!/bin/sh
# Create or update the virtual environment .venv; fast if nothing has changed. Print progress to stderr.
#
#   tools/venv.sh check    print the first missing requirement in one line, or nothing
#   tools/venv.sh          install the four packages in editable mode
#   tools/venv.sh tests    also install the requirements of the tests, the checks and the documentation
#
# PYTHON selects an interpreter other than python3, VENV a directory other than .venv.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

missing_requirement() {
    if ! command -v git >/dev/null; then
        echo "git is missing; install it: apt-get install git"
    elif ! "$python" -c "" 2>/dev/null; then
        echo "$python is missing; install a Python: apt-get install python3 python3-venv"
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$python is older than Python 3.11; install a newer one and select it: make PYTHON=python3.11"
    # On Debian, python3 includes the module venv, but ensurepip, which it needs, is in python3-venv.
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python cannot create virtual environments; install the missing package: apt-get install python3-venv"
    fi
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation "$@"
}

# Run a command, print a dot each second, and return its exit status.
with_dots() {
    "$@" >&2 &
    while kill -0 $! 2>/dev/null; do
        printf . >&2
        sleep 1
    done
    echo >&2
    wait $!
}

install_packages() {
    pip_install --require-hashes -r constraints/build.txt
    pip_install --require-hashes -r constraints/packages.txt
    pip_install --no-deps -e ./common -e ./gafferd -e ./lookupd -e ./client
}

install_tests() {
    pip_install --require-hashes -r constraints/tests.txt
}

# install NAME FILES: run install_NAME if FILES have changed since the last run
install() {
    stamp=$venv/$1.installed
    sum=$(cat $2 | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
        printf 'Installing %s into %s, about half a minute ' "$1" "$venv" >&2
        with_dots "install_$1"
        echo "$sum" >"$stamp"
    fi
}

if [ "${1-}" = check ]; then
    missing_requirement
    exit
fi

# Take a lock: two runs in one checkout would write the same files.
exec 9<tools/venv.sh
flock 9

# An environment is tied to its interpreter and path: create a new one if either has changed.
origin="$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)') $PWD"
if [ "$(cat "$venv/origin" 2>/dev/null)" != "$origin" ]; then
    "$python" -m venv --clear "$venv" >&2
    echo "$origin" >"$venv/origin"
fi

install packages "$(echo */pyproject.toml) constraints/build.txt constraints/packages.txt"
if [ "${1-}" = tests ]; then
    install tests constraints/tests.txt
fi

# Each command imports some 200 modules. Where Python may not write bytecode, it would compile them each time.
"$venv/bin/python" -m compileall -q */src tests >&2 || echo "Can't write bytecode: commands start slowly" >&2
