/**
 * Finds the oldest messages of queues.
 *
 * The first entry of the index of claims is the oldest message of the highest priority; the first entry below that
 * priority is the oldest of the next one, and so on. So as many entries are read as a queue has priorities, however long it
 * is. Each queue has its own part of a statement, with parameters for its name and the priority: from the columns of another
 * table MariaDB does not find a range of an index.
 */
import { Effect } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { CLAIM_ORDER, PARKED, READY } from "./MessageRow.ts"

/** Queues of one statement, at most. */
const QUEUES_AT_ONCE = 32
/** Above every priority. */
const ABOVE_ALL = 256

interface FirstRow {
  readonly n: number
  readonly priority: number
  readonly due_at: number
}

/** A queue, of which only messages below a priority are looked at. */
interface Level {
  readonly queue: string
  readonly below: number
}

/**
 * Finds for each queue when its oldest message became due. `ready` are the queues with messages that are ready, `due` those
 * with messages whose delay or lease is over and that no claim has made ready: of these the one counts that was over first.
 */
export const makeOldest = ({
  dialect: { now },
  reader,
  run,
  table
}: Database): ((
  ready: ReadonlyArray<string>,
  due: ReadonlyArray<string>
) => Effect.Effect<ReadonlyMap<string, number>, StoreError>) => {
  const messages = table("messages")
  const read = reader<FirstRow>("messages", { n: Row.integer, priority: Row.integer, due_at: Row.integer })
  const firstReady = (n: number) => `SELECT * FROM (SELECT ${n} AS n, priority, due_at FROM ${messages}
    WHERE state = ${READY} AND queue = ? AND priority < ? ${CLAIM_ORDER} LIMIT 1) AS first${n}`
  const firstDue = (n: number) => `SELECT * FROM (SELECT ${n} AS n, priority, due_at FROM ${messages}
    WHERE wake_at <= ${now} AND queue = ? AND state <> ${PARKED} ORDER BY wake_at LIMIT 1) AS first${n}`
  const select = (first: (n: number) => string, params: ReadonlyArray<ReadonlyArray<string | number>>) =>
    Effect.flatMap(run(params.map((_, n) => first(n)).join(" UNION ALL "), params.flat()), read)

  return Effect.fnUntraced(function* (
    ready: ReadonlyArray<string>,
    due: ReadonlyArray<string>
  ): Effect.fn.Return<ReadonlyMap<string, number>, StoreError> {
    const dueSince = new Map<string, number>()
    const add = (queue: string, dueAt: number) =>
      dueSince.set(queue, Math.min(dueSince.get(queue) ?? Infinity, dueAt))
    for (const queues of chunks(due)) {
      const rows = yield* select(
        firstDue,
        queues.map((queue) => [queue])
      )
      for (const { due_at, n } of rows) add(queues[n]!, due_at)
    }
    let levels: ReadonlyArray<Level> = ready.map((queue) => ({ queue, below: ABOVE_ALL }))
    while (levels.length > 0) {
      const next: Array<Level> = []
      for (const part of chunks(levels)) {
        const rows = yield* select(
          firstReady,
          part.map(({ below, queue }) => [queue, below])
        )
        for (const { due_at, n, priority } of rows) {
          const { queue } = part[n]!
          add(queue, due_at)
          if (priority > 0) next.push({ queue, below: priority })
        }
      }
      levels = next
    }
    return dueSince
  })
}

const chunks = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(items.length / QUEUES_AT_ONCE) }, (_, i) =>
    items.slice(i * QUEUES_AT_ONCE, (i + 1) * QUEUES_AT_ONCE)
  )
