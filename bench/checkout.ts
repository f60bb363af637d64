/** Checks another commit of this repository out, to compare it with this one. */
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

const git = (...args: ReadonlyArray<string>) =>
  execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim()

/** The modules of the bench that its child processes run. */
const childModules = [
  "bench/child.ts",
  "bench/calls.ts",
  "bench/serve.ts",
  "bench/system.ts",
  "bench/stores.ts",
  "bench/systems/chicory.ts"
]

export interface Checkout {
  /** The commit, abbreviated. */
  readonly commit: string
  /** Its `bench/child.ts`. */
  readonly child: string
  /** The modules of its child processes that differ from those of this working tree. */
  readonly differing: ReadonlyArray<string>
}

/** Returns the full name of a commit, or `undefined` if there is no such commit. */
export const findCommit = (name: string): string | undefined => {
  try {
    return git("rev-parse", "--verify", "--quiet", "--end-of-options", `${name}^{commit}`)
  } catch {
    return undefined
  }
}

/** Names this working tree: its commit, and whether files differ from it. */
export const describeWorkingTree = (): string => {
  const commit = git("rev-parse", "--short", "HEAD")
  return git("status", "--porcelain", "--untracked-files=no") === "" ? commit : `${commit} with changes`
}

/**
 * Checks `commit` out as a git worktree in a temporary directory. The worktree shares `node_modules` with this working
 * tree if their lock files are equal; otherwise `npm ci` installs its dependencies.
 *
 * Calls `onRemove` with the function that removes the worktree, before it creates anything.
 */
export const makeCheckout = (commit: string, onRemove: (remove: () => void) => void): Checkout => {
  const parent = mkdtempSync(join(tmpdir(), "chicory-bench-"))
  const directory = join(parent, "checkout")
  onRemove(() => {
    spawnSync("git", ["worktree", "remove", "--force", directory], { cwd: root })
    rmSync(parent, { recursive: true, force: true })
  })
  git("worktree", "add", "--detach", "--quiet", directory, commit)
  const child = join(directory, "bench/child.ts")
  if (!existsSync(child)) throw new Error(`${commit} has no bench/child.ts to compare with`)

  const lockFile = (at: string) => readFileSync(join(at, "package-lock.json"), "utf8")
  if (lockFile(directory) === lockFile(root)) {
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
  } else {
    console.error("npm ci, as package-lock.json differs")
    const args = ["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    execFileSync("npm", args, { cwd: directory, stdio: ["ignore", "ignore", "inherit"] })
  }
  return {
    commit: git("rev-parse", "--short", commit),
    child,
    differing: git("diff", "--name-only", commit, "--", ...childModules)
      .split("\n")
      .filter(Boolean)
  }
}
