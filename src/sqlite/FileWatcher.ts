/**
 * Notifies subscribers when another connection, of this process or another one, has committed to the file.
 *
 * Every commit in WAL mode writes to the `-wal` file, which is watched; `PRAGMA data_version` says whether the commit was
 * another connection's. A timer also checks, for writes that the file system does not report.
 */
import { type FSWatcher, watch } from "node:fs"
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { Effect, type Scope } from "effect"

/**
 * The file is written before the commit is visible, so a write is followed by several checks: first in consecutive turns
 * of the event loop, then after these pauses.
 */
const IMMEDIATE_CHECKS = 4
const CHECK_PAUSES_MILLIS = [1, 2, 4, 8, 16]
/** The interval of the timer, where the file can be watched and where it cannot. */
const WATCHED_INTERVAL_MILLIS = 500
const UNWATCHED_INTERVAL_MILLIS = 20

/** Watches the file of one connection for as long as it has subscribers. */
export class FileWatcher {
  private readonly database: DatabaseSync
  /** `undefined` for a database without a file, which only its own connection can write to. */
  private readonly walFile: string | undefined
  private readonly isInMemory: boolean
  private readonly subscribers = new Set<() => void>()
  private versionStatement: StatementSync | undefined
  private watcher: FSWatcher | undefined
  private timer: NodeJS.Timeout | undefined
  /** The next check: in the next turn, or after a pause. */
  private nextTurn: NodeJS.Immediate | undefined
  private nextPause: NodeJS.Timeout | undefined
  private lastVersion: unknown
  /** How many checks have followed the last write. */
  private checks = 0

  constructor(database: DatabaseSync, filename: string) {
    const location = database.location()
    this.database = database
    this.walFile = location === null ? undefined : `${location}-wal`
    this.isInMemory = filename === ":memory:"
  }

  /** Calls `notify` after a commit of another connection, until the scope closes. */
  readonly subscribe = (notify: () => void): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => this.add(notify)),
      () => Effect.sync(() => this.remove(notify))
    )

  private add(notify: () => void): void {
    this.subscribers.add(notify)
    if (this.subscribers.size > 1 || this.isInMemory) return
    this.lastVersion = undefined
    this.checks = 0
    this.tick()
  }

  private remove(notify: () => void): void {
    this.subscribers.delete(notify)
    if (this.subscribers.size > 0) return
    clearTimeout(this.timer)
    this.cancelCheck()
    this.stopWatching()
  }

  private readonly tick = (): void => {
    if (this.watcher === undefined) this.startWatching()
    this.check()
    this.timer = setTimeout(
      this.tick,
      this.watcher === undefined ? UNWATCHED_INTERVAL_MILLIS : WATCHED_INTERVAL_MILLIS
    )
  }

  private startWatching(): void {
    if (this.walFile === undefined) return
    try {
      this.watcher = watch(this.walFile, { persistent: false }, this.onWrite)
      this.watcher.on("error", this.stopWatching)
    } catch {
      this.watcher = undefined
    }
  }

  private readonly stopWatching = (): void => {
    this.watcher?.close()
    this.watcher = undefined
  }

  private readonly onWrite = (): void => {
    this.checks = 0
    clearTimeout(this.nextPause)
    this.nextTurn ??= setImmediate(this.check)
  }

  private cancelCheck(): void {
    clearImmediate(this.nextTurn)
    clearTimeout(this.nextPause)
    this.nextTurn = this.nextPause = undefined
  }

  /** Notifies the subscribers if the file has changed, and schedules the next check. */
  private readonly check = (): void => {
    this.cancelCheck()
    // within a transaction, commits of other connections are not visible
    if (this.database.isTransaction) {
      this.nextPause = setTimeout(this.check, CHECK_PAUSES_MILLIS[0])
      return
    }
    const pause = CHECK_PAUSES_MILLIS[this.checks - IMMEDIATE_CHECKS]
    if (this.checks++ < IMMEDIATE_CHECKS) this.nextTurn = setImmediate(this.check)
    else if (pause !== undefined) this.nextPause = setTimeout(this.check, pause)
    const version = this.readVersion()
    if (version === this.lastVersion) return
    this.lastVersion = version
    for (const notify of this.subscribers) notify()
  }

  private readVersion(): unknown {
    try {
      this.versionStatement ??= this.database.prepare("PRAGMA data_version")
      return this.versionStatement.get()?.["data_version"]
    } catch {
      // the file is locked or damaged: the statements of the subscribers fail with the reason
      return undefined
    }
  }
}
