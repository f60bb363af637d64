#!/usr/bin/env bash
# Installs the packed package into an empty project, as a new user does, then type-checks and runs the
# first program of README.md there.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH="$root/node_modules/.bin:$PATH" # for Node 24
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.ci/pack.sh "$work"
mkdir "$work/project"
cd "$work/project"

awk '/^```ts/ { inside = 1; next } inside && /^```/ { exit } inside' "$root/README.md" > first.ts
if [ ! -s first.ts ]; then
  echo "README.md has no \`\`\`ts block" >&2
  exit 1
fi

cat > package.json <<'JSON'
{ "private": true, "type": "module" }
JSON
cat > tsconfig.json <<'JSON'
{
  "compilerOptions": {
    "strict": true,
    "module": "nodenext",
    "moduleResolution": "nodenext",
    "target": "es2024",
    "types": ["node"],
    "noEmit": true,
    "skipLibCheck": false
  },
  "files": ["first.ts"]
}
JSON

version() { node -p "require('$root/package.json').devDependencies['$1']"; }
npm install --no-audit --no-fund "$work"/chicory-*.tgz \
  "effect@$(version effect)" "typescript@$(version typescript)" "@types/node@$(version @types/node)"
npx tsc
TMPDIR="$work" node first.ts
