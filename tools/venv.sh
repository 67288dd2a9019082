#!/bin/sh
# Keep the virtual environment .venv ready; quick when nothing changed. Progress goes to stderr.
#
#   tools/venv.sh check    print what this machine lacks, in one line; nothing when it has all
#   tools/venv.sh          install the four packages, editable
#   tools/venv.sh tests    ... and what the tests, the checks and the pages need
#
# PYTHON names another interpreter than python3, VENV another folder than .venv.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

what_is_missing() {
    if ! command -v git >/dev/null; then
        echo "git is missing; install it: apt-get install git"
    elif ! "$python" -c "" 2>/dev/null; then
        echo "$python is missing; install a Python: apt-get install python3 python3-venv"
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$python is older than Python 3.11; install a newer one and name it: make PYTHON=python3.11"
    # On Debian the module venv comes with python3, but what it needs, ensurepip, with python3-venv.
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python makes no virtual environments; install what it needs for that: apt-get install python3-venv"
    fi
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation "$@"
}

# A dot each second while a command runs; its exit status.
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

# install NAME FILES: run install_NAME, unless FILES are what they were the last time
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
    what_is_missing
    exit
fi

# One at a time: two runs in one checkout would write the same files.
exec 9<tools/venv.sh
flock 9

# An environment belongs to its interpreter and its place: another one, or a checkout that was moved, needs a new one.
origin="$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)') $PWD"
if [ "$(cat "$venv/origin" 2>/dev/null)" != "$origin" ]; then
    "$python" -m venv --clear "$venv" >&2
    echo "$origin" >"$venv/origin"
fi

install packages "$(echo */pyproject.toml) constraints/build.txt constraints/packages.txt"
if [ "${1-}" = tests ]; then
    install tests constraints/tests.txt
fi
