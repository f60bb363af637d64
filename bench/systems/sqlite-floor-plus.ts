/**
 * A task queue with results, written by hand over the bare `node:sqlite`.
 *
 * A task is one row: its record, its body, and its place in the queue, which is in an index of the waiting rows alone.
 * So one insert without a transaction around it enqueues a task. A claim is a row for all of its tasks.
 */
import { watch } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { type ClaimedTask, type FloorPlusStore, makeSession, promises, type Result } from "../floorPlus.ts"
import type { System } from "../system.ts"

/** How often to look for writes of other processes, should the watcher of the file have missed one. */
const lookMillis = 100
/** The file is written before the commit is visible, so a write is followed by as many looks, the last ones each ms. */
const looks = 10
const looksAtOnce = 5

/** state: 0 waits, 1 runs, 2 has ended. */
const schema = `
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS tasks (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0, token TEXT, enqueued_at INTEGER NOT NULL, started_at INTEGER,
  finished_at INTEGER, body TEXT NOT NULL, result TEXT
);
CREATE INDEX IF NOT EXISTS ready ON tasks (seq) WHERE state = 0;
CREATE TABLE IF NOT EXISTS claims (
  token TEXT PRIMARY KEY, held INTEGER NOT NULL, seqs TEXT NOT NULL, leased_until INTEGER NOT NULL
) WITHOUT ROWID;
`

interface Task extends ClaimedTask {
  readonly seq: number
}

interface TaskRow {
  readonly seq: number
  readonly id: string
  readonly body: string
}

interface ResultRow {
  readonly id: string
  readonly result: string
}

interface ClaimRow {
  readonly token: string
  readonly seqs: string
}

/** Opens the store. */
export const openStore = (filename: string): FloorPlusStore<Task> => {
  const db = new DatabaseSync(filename, { timeout: 5000 })
  db.exec(schema)
  const begin = db.prepare("BEGIN IMMEDIATE")
  const commit = db.prepare("COMMIT")
  const rollback = db.prepare("ROLLBACK")
  const transaction = <A>(run: () => A): A => {
    begin.run()
    try {
      const result = run()
      commit.run()
      return result
    } catch (error) {
      rollback.run()
      throw error
    }
  }

  const insert = db.prepare(
    "INSERT INTO tasks (id, enqueued_at, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
  )
  const findReady = db.prepare("SELECT 1 FROM tasks INDEXED BY ready WHERE state = 0 LIMIT 1")
  const start = db.prepare(`UPDATE tasks SET state = 1, attempt = attempt + 1, token = ?, started_at = ?
    WHERE seq IN (SELECT seq FROM tasks INDEXED BY ready WHERE state = 0 ORDER BY seq LIMIT ?)
    RETURNING seq, id, body`)
  const lease = db.prepare("INSERT INTO claims VALUES (?, ?, ?, ?)")
  const end = db.prepare(
    "UPDATE tasks SET state = 2, result = ?, finished_at = ? WHERE seq = ? AND token = ? AND state = 1"
  )
  const giveUp = db.prepare("UPDATE claims SET held = held - ? WHERE token = ?")
  const close = db.prepare("DELETE FROM claims WHERE token = ? AND held <= 0")
  const extend = db.prepare("UPDATE claims SET leased_until = ? WHERE token = ?")
  const findLapsed = db.prepare("SELECT token, seqs FROM claims WHERE leased_until < ?")
  const removeClaim = db.prepare("DELETE FROM claims WHERE token = ?")
  const requeue = db.prepare(`UPDATE tasks SET state = 0
    WHERE seq IN (SELECT value FROM json_each(?)) AND token = ? AND state = 1`)
  const readResults = db.prepare(`SELECT tasks.id, tasks.result FROM json_each(?) AS given
    CROSS JOIN tasks ON tasks.id = given.value WHERE tasks.state = 2`)
  const dataVersion = db.prepare("PRAGMA data_version")

  const read = (ids: ReadonlyArray<string>) => {
    if (ids.length === 0) return []
    const rows = readResults.all(JSON.stringify(ids)) as unknown as ReadonlyArray<ResultRow>
    return rows.map(({ id, result }): Result => [id, result])
  }
  const lapsed = () => findLapsed.all(Date.now()) as unknown as ReadonlyArray<ClaimRow>
  const requeueLapsed = () => {
    if (lapsed().length === 0) return
    transaction(() => {
      for (const { seqs, token } of lapsed()) {
        requeue.run(seqs, token)
        removeClaim.run(token)
      }
    })
  }
  /** Calls `look` when another connection has written. Returns a function that ends it. */
  const onWrites = (look: () => void) => {
    let seen: unknown
    const check = () => {
      const version = dataVersion.get()?.["data_version"]
      if (version === seen) return
      seen = version
      look()
    }
    let left = 0
    const checkAgain = () => {
      if (left <= 0) return
      check()
      if (--left > looks - looksAtOnce) setImmediate(checkAgain)
      else setTimeout(checkAgain, 1)
    }
    const watcher = watch(`${filename}-wal`, () => {
      if (left <= 0) setImmediate(checkAgain)
      left = looks
    })
    const timer = setInterval(check, lookMillis)
    return () => {
      left = 0
      watcher.close()
      clearInterval(timer)
    }
  }
  let ignoreResults = () => {}
  let lastToken = 0

  return {
    splitsBatches: false,
    enqueue: async (tasks) => {
      const now = Date.now()
      const insertAll = () => tasks.forEach(({ body, id }) => insert.run(id, now, body))
      if (tasks.length === 1) insertAll()
      else transaction(insertAll)
    },
    claim: async (max, leaseMillis) => {
      if (findReady.get() === undefined) return []
      const token = `${process.pid}-${++lastToken}`
      const now = Date.now()
      const rows = transaction(() => {
        const started = start.all(token, now, max) as unknown as ReadonlyArray<TaskRow>
        if (started.length > 0) {
          lease.run(token, started.length, JSON.stringify(started.map(({ seq }) => seq)), now + leaseMillis)
        }
        return started
      })
      return rows.map(({ body, id, seq }) => ({ seq, id, body, token, replyTo: null }))
    },
    settle: async (settlements) =>
      transaction(() => {
        const now = Date.now()
        const ended = new Map<string, number>()
        let count = 0
        for (const { result, task } of settlements) {
          if (end.run(result, now, task.seq, task.token).changes === 0) continue
          ended.set(task.token, (ended.get(task.token) ?? 0) + 1)
          count++
        }
        for (const [token, tasks] of ended) {
          giveUp.run(tasks, token)
          close.run(token)
        }
        return count
      }),
    renew: async (tokens, leaseMillis) =>
      transaction(() => tokens.forEach((token) => extend.run(Date.now() + leaseMillis, token))),
    read: async (ids) => read(ids),
    onMessages: async (wake) => {
      const ignore = onWrites(wake)
      const lapsing = setInterval(requeueLapsed, 1000)
      return async () => {
        ignore()
        clearInterval(lapsing)
      }
    },
    onResults: async (receive, awaited) => {
      ignoreResults = onWrites(() => receive(read(awaited())))
    },
    close: async () => {
      ignoreResults()
      db.close()
    }
  }
}

export const floorPlus: System = {
  note:
    `bare node:sqlite (WAL, synchronous NORMAL), ${promises} Result and removal of the message are one` +
    " update. A task is one row, a claim a row for all of its tasks. fs.watch on the -wal file wakes workers, and" +
    ` waiters, which read all results that they await; both look every ${lookMillis} ms besides.`,
  open: async (filename) => makeSession(openStore(filename))
}
