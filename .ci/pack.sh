#!/usr/bin/env bash
# Packs the package into the directory $1. It builds from a copy, so that the working tree stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

cp -R package.json tsconfig.json tsconfig.build.json src docs examples *.md LICENSE "$stage"
ln -s "$PWD/node_modules" "$stage/node_modules"
(cd "$stage" && npm pack --silent --pack-destination "$1" >&2)
