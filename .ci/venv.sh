#!/bin/sh
# Makes $VENV with Python >= 3.11 ($PYTHON, or the first suitable one on PATH) and installs htxas there, editable, at the
# versions of constraints.txt. pip reads its own configuration; this script names no index.
set -eu
venv=${VENV:-.venv}
recent='import sys; sys.exit(sys.version_info < (3, 11))'

if [ ! -x "$venv/bin/python" ]; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$recent" 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "htxas needs Python 3.11 or newer; ${PYTHON:-python3} is not. Try: make PYTHON=/path/to/python3.12 ..." >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
elif ! "$venv/bin/python" -c "$recent" 2>/dev/null; then
    echo "$venv holds a Python older than 3.11 (or a broken one). Run: make clean" >&2
    exit 1
fi

echo "installing htxas and its dependencies into $venv (a few minutes the first time)"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[localdb,onnx,test]'
