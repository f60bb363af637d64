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
 * Returns the user for a server that refuses to run as root: the named user if the tests run as root, otherwise the user
 * of the tests (`{}`). Returns `undefined` if the named user does not exist.
 */
export const serverUser = (name: string): ServerUser | undefined => {
  if (process.getuid?.() !== 0) return {}
  const uid = idOf("-u", name)
  const gid = idOf("-g", name)
  return uid === undefined || gid === undefined ? undefined : { uid, gid }
}
