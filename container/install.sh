#!/usr/bin/env bash
# The steps by which the images are built: `install.sh STEP ARGUMENTS...`.
#
# environment VENV             makes a virtual environment
# dependencies VENV EXTRAS     installs what the extras of the current folder's
#                              setup.py need; "" is the library alone
# code VENV                    installs the packages of the current folder
# user ETC ID HOME FOLDERS...  enters the user transgan into the files of ETC,
#                              and makes folders that are its own
#
# All that they touch is named by their arguments, so that a test can run them
# where no Docker is.
set -euo pipefail

environment() {
    python -m venv "$1"
}

dependencies() {
    "$1/bin/pip" install --no-cache-dir ".${2:+[$2]}"
    # 430 MiB that only those need who compile operations of their own.
    rm -rf "$1"/lib/python*/site-packages/tensorflow/include
}

code() {
    "$1/bin/pip" install --no-cache-dir --no-deps --force-reinstall .
    "$1/bin/pip" check
}

user() {
    local etc=$1 id=$2 home=$3
    # As `useradd` would, which knows only the machine's own users.
    echo "transgan:x:$id:$id::$home:/bin/sh" >>"$etc/passwd"
    echo "transgan:x:$id:" >>"$etc/group"
    install --directory --owner="$id" "${@:3}"
}

"$@"
