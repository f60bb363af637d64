/**
 * The fastest that `node:sqlite` allows: only the writes that a durable task needs, in transactions of 100. Multi-row
 * statements, statements over `json_each` and one statement for each row are used wherever each was the fastest.
 */
import { watch } from "node:fs"
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import { makeCounter, roundTrips } from "../calls.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const batch = 100
const leaseMillis = 30_000
const lookMillis = 1

const schema = `
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS records (
  id TEXT PRIMARY KEY, task TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, token TEXT, worker TEXT,
  leased_until INTEGER, exit TEXT, enqueued_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, queue TEXT NOT NULL, due INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_due ON messages (queue, due);
`

interface Claimed {
  readonly seq: number
  readonly id: string
  readonly body: string
}

interface Done {
  readonly message: Claimed
  readonly token: string
  readonly exit: string
}

const many = (row: string) => Array.from({ length: batch }, () => row).join(", ")

let lastId = 0
/** Returns ids in ascending order, as time-ordered UUIDs are. */
const makeId = () =>
  `${Date.now().toString(16).padStart(12, "0")}-7000-8000-${(++lastId).toString(16).padStart(12, "0")}`

const open = async (filename: string): Promise<Session> => {
  const db = new DatabaseSync(filename, { timeout: 5000 })
  db.exec(schema)
  const begin = db.prepare("BEGIN IMMEDIATE")
  const commit = db.prepare("COMMIT")
  const transaction = (run: () => void) => {
    begin.run()
    run()
    commit.run()
  }

  const recordRow = "(?, ?, 'PENDING', 0, ?)"
  const messageRow = "(?, ?, ?, ?)"
  const insertRecord = "INSERT INTO records (id, task, state, attempt, enqueued_at) VALUES "
  const insertMessage = "INSERT INTO messages (id, queue, due, body) VALUES "
  const insertOneRecord = db.prepare(insertRecord + recordRow)
  const insertOneMessage = db.prepare(insertMessage + messageRow)
  const insertRecords = db.prepare(insertRecord + many(recordRow))
  const insertMessages = db.prepare(insertMessage + many(messageRow))
  const select = db.prepare(
    "SELECT seq, id, body FROM messages WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?"
  )
  const lease = db.prepare("UPDATE messages SET due = ? WHERE seq = ?")
  const begun =
    db.prepare(`UPDATE records SET state = 'STARTED', attempt = attempt + 1, token = ?, worker = ?,
    leased_until = ?, started_at = ? WHERE id = ? AND state <> 'SUCCESS'`)
  const settle = db.prepare(`UPDATE records SET state = 'SUCCESS', exit = ?, finished_at = ?
    WHERE id = ? AND token = ? AND state = 'STARTED'`)
  const remove = db.prepare("DELETE FROM messages WHERE seq = ?")
  const readExit = db.prepare("SELECT exit FROM records WHERE id = ? AND state = 'SUCCESS'")
  const dataVersion = db.prepare("PRAGMA data_version")

  const enqueue = (work: ReadonlyArray<Payload>) => {
    const ids: Array<string> = []
    const now = Date.now()
    const message = (payload: Payload) => {
      const id = makeId()
      ids.push(id)
      return { id, body: JSON.stringify({ v: 1, id, task: "work", queue: "default", payload }) }
    }
    transaction(() => {
      for (let start = 0; start < work.length; start += batch) {
        const messages = work.slice(start, start + batch).map(message)
        if (messages.length === batch) {
          insertRecords.run(...messages.flatMap(({ id }): Array<SQLInputValue> => [id, "work", now]))
          insertMessages.run(
            ...messages.flatMap(({ id, body }): Array<SQLInputValue> => [id, "default", now, body])
          )
        } else {
          for (const { id, body } of messages) {
            insertOneRecord.run(id, "work", now)
            insertOneMessage.run(id, "default", now, body)
          }
        }
      }
    })
    return ids
  }

  let lastToken = 0
  const claim = (max: number) => {
    const token = `${process.pid}-${++lastToken}`
    let claimed: ReadonlyArray<Claimed> = []
    const now = Date.now()
    transaction(() => {
      claimed = select.all("default", now, max) as unknown as ReadonlyArray<Claimed>
      for (const { seq, id } of claimed) {
        lease.run(now + leaseMillis, seq)
        begun.run(token, "worker", now + leaseMillis, now, id)
      }
    })
    return { token, claimed }
  }

  const store = (done: ReadonlyArray<Done>) => {
    const now = Date.now()
    transaction(() => {
      for (const { message, token, exit } of done) {
        settle.run(exit, now, message.id, token)
        remove.run(message.seq)
      }
    })
  }

  /** Calls `look` when another connection has written. Returns a function that stops it. */
  const onWrites = (look: () => void) => {
    let seen: unknown
    const check = () => {
      const version = dataVersion.get()?.["data_version"]
      if (version === seen) return
      seen = version
      look()
    }
    const watcher = watch(`${filename}-wal`, check)
    const timer = setInterval(check, lookMillis)
    check()
    return () => {
      watcher.close()
      clearInterval(timer)
    }
  }

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const sleeping = new Set<NodeJS.Timeout>()
    let done: Array<Done> = []
    let storing: NodeJS.Immediate | undefined

    const storeDone = () => {
      storing = undefined
      for (let start = 0; start < done.length; start += batch) store(done.slice(start, start + batch))
      counter.add(done.length)
      done = []
    }
    const finish = (message: Claimed, token: string) => {
      const { payload } = JSON.parse(message.body) as { payload: Payload }
      done.push({
        message,
        token,
        exit: JSON.stringify({ _tag: "Success", value: { value: payload.value } })
      })
    }
    const begin = (message: Claimed, token: string) => {
      if (sleepMillis === 0) return finish(message, token)
      const timer = setTimeout(() => {
        sleeping.delete(timer)
        finish(message, token)
        storing ??= setImmediate(storeDone)
      }, sleepMillis)
      sleeping.add(timer)
    }
    const claimAll = () => {
      for (;;) {
        const free = Math.min(batch, concurrency - sleeping.size)
        if (free <= 0) return
        const { claimed, token } = claim(free)
        for (const message of claimed) begin(message, token)
        if (sleepMillis === 0) storeDone()
        if (claimed.length < free) return
      }
    }
    const unwatch = onWrites(claimAll)
    return {
      finished: counter.reached,
      stop: async () => {
        unwatch()
        clearImmediate(storing)
        for (const timer of sleeping) clearTimeout(timer)
      }
    }
  }

  const valueOf = (id: string) => {
    const exit = readExit.get(id)?.["exit"]
    return typeof exit === "string"
      ? (JSON.parse(exit) as { value: { value: number } }).value.value
      : undefined
  }

  const ids = (chunks: ReadonlyArray<ReadonlyArray<Payload>>) => chunks.flatMap(enqueue)

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) enqueue([payload])
    },
    concurrently: async (payloads) => {
      const chunks = Array.from({ length: Math.ceil(payloads.length / batch) }, (_, index) =>
        payloads.slice(index * batch, (index + 1) * batch)
      )
      return ids(chunks)
    },
    bulk: async (chunks) => ids(chunks),
    work,
    roundTrips: async (options) => {
      const waiting = new Map<string, (value: number) => void>()
      const unwatch = onWrites(() => {
        for (const [id, resolve] of waiting) {
          const value = valueOf(id)
          if (value === undefined) continue
          waiting.delete(id)
          resolve(value)
        }
      })
      let asked: Array<{ payload: Payload; resolve: (value: number) => void }> = []
      /** Enqueues the tasks of one turn of the event loop in one transaction. */
      const enqueueAsked = () => {
        const now = asked
        asked = []
        enqueue(now.map(({ payload }) => payload)).forEach((id, index) => {
          const resolve = now[index]?.resolve
          if (resolve) waiting.set(id, resolve)
        })
      }
      const call = (payload: Payload) =>
        new Promise<number>((resolve) => {
          if (asked.push({ payload, resolve }) === 1) setImmediate(enqueueAsked)
        })
      try {
        return await roundTrips(options, call)
      } finally {
        unwatch()
      }
    },
    check: async (ids) => ids.filter((id) => valueOf(String(id)) !== undefined).length,
    close: async () => db.close()
  }
}

export const floor: System = {
  note:
    "bare node:sqlite (WAL, synchronous NORMAL), no Effect; a record and a message for each task; W1b, W2 in" +
    ` transactions of ${batch}, W1c of 1,000, W1a of one. Claim and start are one transaction, result and` +
    " acknowledgement another. W3, W4: fs.watch on the -wal file wakes worker and producer, they look at" +
    ` data_version then, and every ${lookMillis} ms besides.`,
  open
}
