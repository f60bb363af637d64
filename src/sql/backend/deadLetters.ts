/**
 * Parks messages, and lists and removes dead letters. `settle` and `TaskRows.end` write the dead letters of tasks.
 */
import { Effect } from "effect"
import type { DeadLetter, DeadLetterId, DeadLetterQuery, ParkedMessage } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { columns, type DeadLetterRow, isRetained, shape, toDeadLetter } from "./DeadLetterRow.ts"

/** Parks messages, and lists and removes dead letters. */
export interface DeadLetterOperations {
  /** Needs a transaction. */
  readonly park: (messages: Batch<ParkedMessage>) => Effect.Effect<void, StoreError>
  readonly getMany: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, StoreError>
  readonly list: (page: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, StoreError>
  readonly listIds: (page: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetterId>, StoreError>
  readonly count: (task: string | undefined) => Effect.Effect<number, StoreError>
  /** Needs a transaction. */
  readonly remove: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
}

/** Prepares the statements of parking: an older dead letter of the same id makes room if its retention is over. */
const makePark = ({ batched, deleteByKeys, dialect, table }: Database): DeadLetterOperations["park"] => {
  const { insertIgnore, now, onConflictDoNothing } = dialect
  const removeOutlived = deleteByKeys<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id",
    and: `remove_at <= ${now}`
  })
  const insert = batched(
    { id: "text", queue: "text", reason: "text", outcome: "text", body: "body", retention: "integer" },
    (batch) =>
      `${insertIgnore} ${table("dead_letters")} (
        id, generation, queue, reason, attempts, fence, at, remove_at, outcome, body
      )
      SELECT batch.id, 0, batch.queue, batch.reason, 0, 0, ${now}, ${now} + batch.retention, batch.outcome, batch.body
      FROM ${batch} WHERE batch.id IS NOT NULL
      ${onConflictDoNothing}`
  )
  return Effect.fnUntraced(function* (messages) {
    yield* removeOutlived(messages.map(({ deadLetterId }) => deadLetterId))
    yield* insert(
      messages.map(({ body, exit, deadLetterId, queue, reason, retentionMillis }) => ({
        id: deadLetterId,
        queue,
        reason,
        outcome: exit,
        body,
        retention: toMillis(retentionMillis)
      }))
    )
  })
}

/** Reads and writes dead letters over one database. */
export const makeDeadLetters = (db: Database): DeadLetterOperations => {
  const { deleteByKeys, dialect, reader, run, table } = db
  const deadLetters = table("dead_letters")
  const retained = isRetained(dialect)
  const read = reader<DeadLetterRow>("dead_letters", shape)
  const readIds = reader<Pick<DeadLetterRow, "pk" | "id" | "at">>("dead_letters", {
    pk: Row.integer,
    id: Row.text,
    at: Row.integer
  })
  const readCount = reader<{ readonly count: number }>("dead_letters", { count: Row.integer })

  const selectByIds = `SELECT ${columns} FROM ${deadLetters} WHERE ${dialect.inList("id", "text")} AND ${retained}`
  const selectPage = (columns: string): string =>
    `SELECT ${columns} FROM ${deadLetters} WHERE pk < ? AND ${retained} ORDER BY pk DESC LIMIT ?`
  const selectPageOfTask = (columns: string): string =>
    `SELECT ${columns} FROM ${deadLetters} WHERE task = ? AND pk < ? AND ${retained} ORDER BY pk DESC LIMIT ?`
  const countAll = `SELECT COUNT(*) AS count FROM ${deadLetters} WHERE ${retained}`
  const countOfTask = `SELECT COUNT(*) AS count FROM ${deadLetters} WHERE task = ? AND ${retained}`
  const removeByIds = deleteByKeys<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id"
  })

  const runPage = (columns: string, { after, limit, task }: DeadLetterQuery) => {
    const before = after?.order ?? Number.MAX_SAFE_INTEGER
    return task === undefined
      ? run(selectPage(columns), [before, limit])
      : run(selectPageOfTask(columns), [task, before, limit])
  }

  return {
    park: makePark(db),
    getMany: (ids) =>
      Effect.map(Effect.flatMap(run(selectByIds, [dialect.list(ids)]), read), (rows) => {
        const found = new Map(rows.map((row) => [row.id, toDeadLetter(row, dialect)]))
        return ids.map((id) => found.get(id))
      }),
    list: (query) =>
      Effect.map(Effect.flatMap(runPage(columns, query), read), (rows) =>
        rows.map((row) => toDeadLetter(row, dialect))
      ),
    listIds: (query) =>
      Effect.map(Effect.flatMap(runPage("pk, id, at", query), readIds), (rows) =>
        rows.map(({ at, id, pk }) => ({ id, at, order: pk }))
      ),
    count: (task) =>
      Effect.map(
        Effect.flatMap(task === undefined ? run(countAll) : run(countOfTask, [task]), readCount),
        (rows) => rows[0]?.count ?? 0
      ),
    remove: (ids) =>
      Effect.map(removeByIds(ids), (found) => {
        const removed = new Set(found)
        return ids.map((id) => removed.delete(id))
      })
  }
}
