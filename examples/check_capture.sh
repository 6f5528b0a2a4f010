#!/bin/sh
# A CI check of captured streams: fails unless every one is complete and valid.
# Usage: check_capture.sh STREAM...   (needs blkmig on PATH)
set -eu
[ $# -gt 0 ] || { echo "usage: check_capture.sh STREAM..." >&2; exit 2; }
for stream in "$@"; do
    status=0
    blkmig validate "$stream" || status=$?
    echo "$stream: exit status $status"
    [ "$status" = 0 ] || exit "$status"
done
