import { spawnSync } from "node:child_process"

/** The user of a process, as `spawn` takes it. */
export interface ServerUser {
  readonly uid?: number
  readonly gid?: number
}

const idOf = (kind: "-u" | "-g", name: string): number | undefined => {
  const { status, stdout } = spawnSync("id", [kind, name], { encoding: "utf8" })
  return status === 0 ? Number(stdout) : undefined
}

/**
 * Returns the user for a server that does not run as root: the named user, or the one that runs the tests.
 * `undefined`: there is none.
 */
export const serverUser = (name: string): ServerUser | undefined => {
  if (process.getuid?.() !== 0) return {}
  const uid = idOf("-u", name)
  const gid = idOf("-g", name)
  return uid === undefined || gid === undefined ? undefined : { uid, gid }
}
