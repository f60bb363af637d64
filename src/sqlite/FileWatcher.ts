/**
 * Tells that another process, or another connection, wrote to the file.
 *
 * Every commit in WAL mode writes to the `-wal` file, which is watched; `PRAGMA data_version` says whether it was
 * another connection's. A timer looks too, for what a watcher misses.
 */
import { type FSWatcher, watch } from "node:fs"
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { Effect, type Scope } from "effect"

/**
 * After the file was written it is looked at more than once, for it is written first, and only then can the commit be
 * seen: so many times in turns of the event loop, then after these pauses.
 */
const TURNS = 4
const PAUSES_MILLIS = [1, 2, 4, 8, 16]
/** How often the timer looks, where the file can be watched and where it cannot. */
const WATCHED_MILLIS = 500
const UNWATCHED_MILLIS = 20

/** While somebody listens, the file is watched. Whoever is called back stays so until the scope closes. */
export const make = ({
  database,
  filename
}: {
  readonly database: DatabaseSync
  readonly filename: string
}): ((listener: () => void) => Effect.Effect<void, never, Scope.Scope>) => {
  let version: StatementSync | undefined
  const location = database.location()
  const listeners = new Set<() => void>()
  let watcher: FSWatcher | undefined
  let timer: NodeJS.Timeout | undefined
  let soon: NodeJS.Timeout | undefined
  let turn: NodeJS.Immediate | undefined
  let lastVersion: unknown
  /** Since the file was written. */
  let looks = 0

  const readVersion = (): unknown => {
    try {
      version ??= database.prepare("PRAGMA data_version")
      return version.get()?.["data_version"]
    } catch {
      // the file is locked, or broken, which whoever is called will be told
      return undefined
    }
  }

  const look = (): void => {
    clearImmediate(turn)
    clearTimeout(soon)
    turn = soon = undefined
    // within a transaction nothing that others write can be seen
    if (database.isTransaction) {
      soon = setTimeout(look, PAUSES_MILLIS[0])
      return
    }
    const pause = PAUSES_MILLIS[looks - TURNS]
    if (looks++ < TURNS) turn = setImmediate(look)
    else if (pause !== undefined) soon = setTimeout(look, pause)
    const current = readVersion()
    if (current === lastVersion) return
    lastVersion = current
    for (const listener of listeners) listener()
  }
  const written = (): void => {
    looks = 0
    clearTimeout(soon)
    turn ??= setImmediate(look)
  }

  const startWatching = (): void => {
    if (location === null) return
    try {
      watcher = watch(`${location}-wal`, { persistent: false }, written)
      watcher.on("error", stopWatching)
    } catch {
      watcher = undefined
    }
  }
  const stopWatching = (): void => {
    watcher?.close()
    watcher = undefined
  }
  const tick = (): void => {
    if (watcher === undefined) startWatching()
    look()
    timer = setTimeout(tick, watcher === undefined ? UNWATCHED_MILLIS : WATCHED_MILLIS)
  }

  const add = (listener: () => void): void => {
    listeners.add(listener)
    if (listeners.size > 1 || filename === ":memory:") return
    lastVersion = undefined
    looks = 0
    tick()
  }
  const remove = (listener: () => void): void => {
    listeners.delete(listener)
    if (listeners.size > 0) return
    clearTimeout(timer)
    clearTimeout(soon)
    clearImmediate(turn)
    soon = turn = undefined
    stopWatching()
  }

  return (listener) =>
    Effect.acquireRelease(
      Effect.sync(() => add(listener)),
      () => Effect.sync(() => remove(listener))
    )
}
