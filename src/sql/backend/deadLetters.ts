/**
 * Messages that will not be run again, unless they are replayed. Those of a run are written where it is settled.
 */
import { Effect } from "effect"
import type { DeadLetter, DeadLetterQuery, ParkedMessage } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type Database, toMillis, distinctBatches, type StoreError } from "../Database.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** The operations. */
export interface DeadLetterOperations {
  /** Belongs into a transaction. */
  readonly park: (letters: Batch<ParkedMessage>) => Effect.Effect<void, StoreError>
  /** Belongs into a transaction. */
  readonly reopen: (ids: Batch<string>) => Effect.Effect<BatchResult<DeadLetter | undefined>, StoreError>
  readonly getMany: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, StoreError>
  readonly list: (page: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, StoreError>
  readonly count: (task: string | undefined) => Effect.Effect<number, StoreError>
  /** Belongs into a transaction. */
  readonly remove: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
}

interface DeadLetterRow {
  readonly pk: number
  readonly id: string
  readonly task_id: string | null
  readonly task: string | null
  readonly generation: number
  readonly queue: string
  readonly reason: string
  readonly worker: string | null
  readonly attempts: number
  readonly at: number
  readonly task_retention: number | null
  readonly fence: number
  readonly outcome: string | null
  readonly body: string | Uint8Array
}

const shape: Row.Shape<DeadLetterRow> = {
  pk: Row.integer,
  id: Row.text,
  task_id: Row.orNull(Row.text),
  task: Row.orNull(Row.text),
  generation: Row.integer,
  queue: Row.text,
  reason: Row.text,
  worker: Row.orNull(Row.text),
  attempts: Row.integer,
  at: Row.integer,
  task_retention: Row.orNull(Row.integer),
  fence: Row.integer,
  outcome: Row.orNull(Row.text),
  body: Row.bytes
}

const toDeadLetter = (row: DeadLetterRow, { fromBody }: Dialect): DeadLetter => ({
  id: row.id,
  taskId: row.task_id,
  task: row.task,
  generation: row.generation,
  queue: row.queue,
  reason: row.reason,
  exit: row.outcome,
  worker: row.worker,
  body: fromBody(row.body),
  attempts: row.attempts,
  at: row.at
})

/** Over one database. */
export const make = (db: Database, records: TaskRows.TaskRows): DeadLetterOperations => {
  const { dialect } = db
  const letters = db.table("dead_letters")
  const tasks = db.table("tasks")
  const read = db.reader<DeadLetterRow>("dead_letters", shape)
  const readPk = db.reader<{ readonly pk: number }>("dead_letters", { pk: Row.integer })
  const readCount = db.reader<{ readonly count: number }>("dead_letters", { count: Row.integer })

  const kept = `(remove_at IS NULL OR remove_at > ${dialect.now})`
  const columns = Object.keys(shape).join(", ")
  const byIds = `SELECT ${columns} FROM ${letters} WHERE ${dialect.inList("id", "text")} AND ${kept}`
  const pkOf = `SELECT pk FROM ${letters} WHERE id = ?`
  const page = `SELECT ${columns} FROM ${letters} WHERE pk < ? AND ${kept} ORDER BY pk DESC LIMIT ?`
  const pageOfTask = `SELECT ${columns} FROM ${letters} WHERE task = ? AND pk < ? AND ${kept} ORDER BY pk DESC LIMIT ?`
  const countAll = `SELECT COUNT(*) AS count FROM ${letters} WHERE ${kept}`
  const countOfTask = `SELECT COUNT(*) AS count FROM ${letters} WHERE task = ? AND ${kept}`
  const byId = { table: "dead_letters", key: ["id", "text"], index: "dead_letters_id" } as const
  const removeRows = db.removing<string>(byId)
  const removeOld = db.removing<string>({ ...byId, and: `remove_at <= ${dialect.now}` })
  const insertParked = db.batched(
    { id: "text", queue: "text", reason: "text", outcome: "text", body: "text", retention: "integer" },
    (batch) =>
      dialect.insertNew({
        table: letters,
        columns: [
          "id",
          "generation",
          "queue",
          "reason",
          "attempts",
          "fence",
          "at",
          "remove_at",
          "outcome",
          "body"
        ],
        select: `SELECT batch.id, 0, batch.queue, batch.reason, 0, 0, ${dialect.now},
          ${dialect.now} + batch.retention, batch.outcome, batch.body
          FROM ${batch} WHERE batch.id IS NOT NULL`
      })
  )
  const insertTask = db.batched(
    {
      id: "text",
      task: "text",
      generation: "integer",
      fence: "integer",
      at: "integer",
      retention: "integer"
    },
    (batch) =>
      dialect.insertNew({
        table: tasks,
        columns: [
          "id",
          "task",
          "payload_hash",
          "published",
          "state",
          "generation",
          "fence",
          "enqueued_at",
          "retention",
          "check_at"
        ],
        select: `SELECT batch.id, batch.task, '', 1, 'PENDING', batch.generation, batch.fence, batch.at, batch.retention,
          batch.at + batch.retention
          FROM ${batch} WHERE batch.id IS NOT NULL`
      })
  )

  const reopenRound = (
    ids: ReadonlyArray<string>,
    answers: Map<string, DeadLetter>,
    changed: Array<string>
  ) =>
    Effect.gen(function* () {
      const found = yield* Effect.flatMap(db.run(byIds, [dialect.list(ids)]), read)
      for (const row of found) answers.set(row.id, toDeadLetter(row, dialect))
      const ofTasks = found.filter((row) => row.task_id !== null)
      // two letters of one task: the one of the later generation comes last
      const inOrder = [...ofTasks].sort((a, b) => a.generation - b.generation)
      for (const round of distinctBatches(inOrder, (row) => row.task_id!)) {
        const { now, rows: current } = yield* records.selectForUpdate(round.map(({ item }) => item.task_id!))
        const openings: Array<TaskRows.TaskToOpen> = []
        const missing: Array<ReadonlyArray<unknown>> = []
        for (const { item } of round) {
          const record = current.get(item.task_id!)
          const generation = item.generation + 1
          if (record === undefined) {
            missing.push([item.task_id, item.task, generation, item.fence, now, item.task_retention])
          } else if (TaskRows.isFinal(record) && record.generation < generation) {
            openings.push({ row: record, generation })
          } else continue
          changed.push(item.task_id!)
        }
        yield* records.open(openings, now)
        yield* insertTask(missing)
      }
    })

  const before = (after: string | undefined) =>
    after === undefined
      ? Effect.succeed(Number.MAX_SAFE_INTEGER)
      : Effect.map(
          Effect.flatMap(db.run(pkOf, [after]), readPk),
          // a letter that was removed meanwhile: those before it may come again, those after it are not lost
          (rows) => rows[0]?.pk ?? Number.MAX_SAFE_INTEGER
        )

  return {
    park: (parked) =>
      Effect.gen(function* () {
        yield* removeOld(parked.map(({ deadLetterId }) => deadLetterId))
        yield* insertParked(
          parked.map((letter) => [
            letter.deadLetterId,
            letter.queue,
            letter.reason,
            letter.exit,
            dialect.toBody(letter.body),
            toMillis(letter.retentionMillis)
          ])
        )
      }),
    reopen: (ids) =>
      Effect.suspend(() => {
        const answers = new Map<string, DeadLetter>()
        const changed: Array<string> = []
        return Effect.map(reopenRound([...new Set(ids)], answers, changed), () => ({
          answers: ids.map((id) => answers.get(id)),
          changed
        }))
      }),
    getMany: (ids) =>
      Effect.map(Effect.flatMap(db.run(byIds, [dialect.list(ids)]), read), (rows) => {
        const found = new Map(rows.map((row) => [row.id, toDeadLetter(row, dialect)]))
        return ids.map((id) => found.get(id))
      }),
    list: ({ after, limit, task }) =>
      Effect.flatMap(before(after), (pk) =>
        Effect.map(
          Effect.flatMap(
            task === undefined ? db.run(page, [pk, limit]) : db.run(pageOfTask, [task, pk, limit]),
            read
          ),
          (rows) => rows.map((row) => toDeadLetter(row, dialect))
        )
      ),
    count: (task) =>
      Effect.map(
        Effect.flatMap(task === undefined ? db.run(countAll) : db.run(countOfTask, [task]), readCount),
        (rows) => rows[0]?.count ?? 0
      ),
    remove: (ids) =>
      Effect.map(removeRows(ids), (found) => {
        const removed = new Set(found)
        return ids.map((id) => removed.delete(id))
      })
  }
}
