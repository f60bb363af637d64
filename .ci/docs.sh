#!/usr/bin/env bash
# Generates the API reference into reference/, and checks the links in it and those of the Markdown files.
# The generator needs a TypeScript that has a JavaScript API, so the two are installed apart from the library.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=.ci/typedoc
if [ ! "$tool/node_modules/.package-lock.json" -nt "$tool/package-lock.json" ]; then
  npm ci --prefix "$tool" --no-audit --no-fund
fi
vitest run test/links.test.ts
"$tool/node_modules/.bin/typedoc" --options "$tool/typedoc.config.js"
