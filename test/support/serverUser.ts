import { spawnSync } from "node:child_process"

/** Whom a process runs as, as `spawn` takes it. */
export interface ServerUser {
  readonly uid?: number
  readonly gid?: number
}

const idOf = (kind: "-u" | "-g", name: string): number | undefined => {
  const { status, stdout } = spawnSync("id", [kind, name], { encoding: "utf8" })
  return status === 0 ? Number(stdout) : undefined
}

/** Whom a server runs as, that is not run as root: that user, or whoever runs the tests. `undefined`: there is nobody. */
export const serverUser = (name: string): ServerUser | undefined => {
  if (process.getuid?.() !== 0) return {}
  const uid = idOf("-u", name)
  const gid = idOf("-g", name)
  return uid === undefined || gid === undefined ? undefined : { uid, gid }
}
