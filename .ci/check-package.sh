#!/usr/bin/env bash
# Packs the package and checks the tarball.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

.ci/pack.sh "$out"
publint run --strict "$out"/*.tgz
attw --profile esm-only "$out"/*.tgz
