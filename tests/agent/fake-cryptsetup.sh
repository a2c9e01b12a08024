#!/bin/sh
# A cryptsetup that does what the file `behaviour` in its own directory says. It is never written to while it runs: each test links to
# it, and writes the files beside the link.
here=$(dirname "$0")
echo "$*" >>"$here/calls"
env >>"$here/environment"
if [ "$1" = --version ]; then
    cat "$here/version"
    exit 0
fi
. "$here/behaviour"
