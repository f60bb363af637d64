/**
 * The records of tasks: how they are read for a change, and the changes that more than one operation makes.
 *
 * A change locks and reads the rows concerned, decides in this process, and writes what it decided with one statement.
 */
import { Effect } from "effect"
import type { StoreDecidedEnd, Start } from "../../BackendDriver.ts"
import { isTerminal, type TaskState } from "../../TaskState.ts"
import { type Database, toMillis, type StoreError } from "../Database.ts"
import * as Row from "../Row.ts"

/** What decisions are made of. */
export interface TaskRow {
  readonly id: string
  readonly task: string
  readonly payload_hash: string
  readonly published: 0 | 1
  readonly state: TaskState
  readonly generation: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
  readonly fence: number
  readonly token: string | null
  readonly at_most_once: 0 | 1
  readonly cancel_requested: 0 | 1
  readonly ended: StoreDecidedEnd | null
  readonly expires_at: number | null
  readonly due_at: number | null
  readonly lease_until: number | null
  readonly retention: number | null
  readonly remove_at: number | null
}

/** The states of a record. */
const state: Row.Check<TaskState> = Row.oneOf("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE")

/** The ends that the store decides. */
const ended: Row.Check<StoreDecidedEnd | null> = Row.orNull(
  Row.oneOf("Expired", "WorkerLost", "Cancelled", "Forgotten")
)

const integerOrNull = Row.orNull(Row.integer)

/** The checks of those columns. */
export const shape: Row.Shape<TaskRow> = {
  id: Row.text,
  task: Row.text,
  payload_hash: Row.text,
  published: Row.flag,
  state,
  generation: Row.integer,
  attempt: Row.integer,
  retries: Row.integer,
  crashes: Row.integer,
  fence: Row.integer,
  token: Row.orNull(Row.text),
  at_most_once: Row.flag,
  cancel_requested: Row.flag,
  ended,
  expires_at: integerOrNull,
  due_at: integerOrNull,
  lease_until: integerOrNull,
  retention: integerOrNull,
  remove_at: integerOrNull
}

/** Whether the record is final. */
export const isFinal = (record: TaskRow): boolean => isTerminal(record.state)

/** Whether the record waits for a run. */
export const isWaiting = (record: TaskRow): boolean => record.state === "PENDING" || record.state === "RETRY"

/** Whether a lease is held at that time. */
const isLeased = (record: TaskRow, now: number): boolean =>
  record.lease_until !== null && record.lease_until > now

/** How a record ends by the mere passing of time. */
export const lapsed = (record: TaskRow, now: number): Exclude<StoreDecidedEnd, "Forgotten"> | undefined => {
  if (isWaiting(record)) return record.expires_at !== null && record.expires_at <= now ? "Expired" : undefined
  if (record.state !== "STARTED" || record.at_most_once === 0 || isLeased(record, now)) return undefined
  return record.cancel_requested === 1 ? "Cancelled" : "WorkerLost"
}

/** An end that the store decides. */
export interface TaskToEnd {
  readonly row: TaskRow
  readonly ended: Exclude<StoreDecidedEnd, "Forgotten">
  readonly crashes: number
  /** For the dead letter of a `WorkerLost`, where the record has not kept it. */
  readonly message?: Pick<Start, "queue" | "body">
}

/** A task that is to wait again, as a new generation. */
export interface TaskToOpen {
  readonly row: TaskRow
  readonly generation: number
}

/** The records of one moment. */
export interface Snapshot {
  readonly now: number
  /** By id. A record whose retention ran out is not there. */
  readonly rows: ReadonlyMap<string, TaskRow>
}

/** The shared changes. All of them belong into a transaction. */
export interface TaskRows {
  /** Reads records by their ids, and keeps nobody from them. */
  readonly select: (ids: ReadonlyArray<string>) => Effect.Effect<Snapshot, StoreError>
  /** Reads records by their ids, for a change. */
  readonly selectForUpdate: (ids: ReadonlyArray<string>) => Effect.Effect<Snapshot, StoreError>
  /** Looks again, at that time, whether a record lapsed or outlived its retention. */
  readonly scheduleChecks: (
    checks: ReadonlyArray<{ readonly record: TaskRow; readonly at: number }>
  ) => Effect.Effect<void, StoreError>
  /** Ends tasks by the store's own decision; a `WorkerLost` leaves its dead letter. Forgotten records go. */
  readonly end: (endings: ReadonlyArray<TaskToEnd>, now: number) => Effect.Effect<void, StoreError>
  readonly remove: (records: ReadonlyArray<TaskRow>) => Effect.Effect<void, StoreError>
  /** Removes dead letters, so that there is room for others with their ids. */
  readonly removeDeadLetters: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Back to `PENDING`, nothing counted, without an expiry. */
  readonly open: (openings: ReadonlyArray<TaskToOpen>, now: number) => Effect.Effect<void, StoreError>
}

/** The columns of `Current`, for a statement of one's own. */
export const columns: string = Object.keys(shape).join(", ")

/** The sooner of two times or durations, of which either may never come. */
export const earliest = (one: number | null, other: number | null): number | null =>
  one === null || other === null ? (one ?? other) : Math.min(one, other)

/** A retention's end, counted from a time; `null`: never. */
export const timeAfter = (from: number, duration: number | null | undefined): number | null =>
  duration === null || duration === undefined ? null : from + toMillis(duration)!

/** How rows are found by the `id` of a batch, for a change that needs to know no more. */
export const matchById = {
  where: "t.id = batch.id",
  key: ["id", "text"],
  returning: ["id"]
} as const

/** What a run leaves on its record only while it is open. */
export const clearRun = { lease_until: "NULL", queue: "NULL", body: "NULL" } as const

/** The shared changes over one database. */
export const make = (db: Database): TaskRows => {
  const tasks = db.table("tasks")
  const letters = db.table("dead_letters")
  const { dialect } = db

  const read = db.reader<TaskRow & { readonly now: number }>("tasks", { ...shape, now: Row.integer })
  const selectFrom = (table: string) =>
    `SELECT ${columns}, ${dialect.now} AS now FROM ${table} WHERE ${dialect.inList("id", "text")}`
  const select = selectFrom(tasks)
  // in the order of their ids, so that two transactions do not wait for each other
  const selectLocked = `${selectFrom(dialect.byIndex(tasks))} ORDER BY id ${dialect.forUpdate}`
  const deleteLetters = db.removing<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id"
  })
  const deleteRows = db.removing<string>({ table: "tasks", key: ["id", "text"] })

  const insertLost = db.batched(
    { id: "text", queue: "text", body: "text", at: "integer" },
    (batch) =>
      `INSERT INTO ${letters}
        (id, task_id, task, generation, queue, reason, worker, attempts, at, task_retention, fence, remove_at, body)
      SELECT ${dialect.concat("t.id", "':'", "t.generation")}, t.id, t.task, t.generation, COALESCE(t.queue, batch.queue), 'WorkerLost',
        t.worker, t.attempt, batch.at, t.retention, t.fence, batch.at + t.letter_retention,
        COALESCE(t.body, batch.body)
      FROM ${batch} JOIN ${tasks} AS t ON t.id = batch.id
      WHERE COALESCE(t.body, batch.body) IS NOT NULL`
  )
  const updateEnded = db.updating({
    table: "tasks",
    columns: { id: "text", ended: "text", crashes: "integer", at: "integer", remove_at: "integer" },
    set: {
      state: "'FAILURE'",
      ended: "batch.ended",
      crashes: "batch.crashes",
      finished_at: "batch.at",
      remove_at: "batch.remove_at",
      check_at: "COALESCE(t.check_at, batch.remove_at)",
      token: "NULL",
      due_at: "NULL",
      ...clearRun
    },
    ...matchById
  })
  const updateOpened = db.updating({
    table: "tasks",
    columns: { id: "text", generation: "integer", at: "integer" },
    set: {
      state: "'PENDING'",
      generation: "batch.generation",
      attempt: "0",
      retries: "0",
      crashes: "0",
      token: "NULL",
      worker: "NULL",
      cancel_requested: "0",
      ended: "NULL",
      published: "1",
      enqueued_at: "batch.at",
      started_at: "NULL",
      finished_at: "NULL",
      expires_at: "NULL",
      due_at: "NULL",
      remove_at: "NULL",
      progress: "NULL",
      outcome: "NULL",
      check_at: "COALESCE(t.check_at, batch.at + t.retention)",
      ...clearRun
    },
    ...matchById
  })

  const updateCheck = db.updating({
    table: "tasks",
    columns: { id: "text", at: "integer" },
    set: { check_at: "batch.at" },
    ...matchById
  })

  const remove: TaskRows["remove"] = (records) =>
    Effect.asVoid(deleteRows(records.map((record) => record.id)))
  const removeLetters: TaskRows["removeDeadLetters"] = (ids) => Effect.asVoid(deleteLetters(ids))

  const isGone = (record: TaskRow, now: number): boolean =>
    record.remove_at !== null && record.remove_at <= now

  const find = (text: string, ids: ReadonlyArray<string>) =>
    Effect.flatMap(Effect.flatMap(db.run(text, [dialect.list(ids)]), read), (found) =>
      Effect.map(found.length === 0 ? db.now : Effect.succeed(found[0]!.now), (now) => {
        const rows = new Map<string, TaskRow>()
        const gone: Array<TaskRow> = []
        for (const record of found) {
          if (isGone(record, now)) gone.push(record)
          else rows.set(record.id, record)
        }
        return { now, rows, gone }
      })
    )

  return {
    select: (ids) => find(select, ids),
    selectForUpdate: (ids) =>
      Effect.flatMap(find(selectLocked, ids), ({ gone, ...locked }) => Effect.as(remove(gone), locked)),
    end: (endings, now) =>
      Effect.gen(function* () {
        const lost = endings.filter((ending) => ending.ended === "WorkerLost")
        yield* removeLetters(lost.map(({ row: record }) => `${record.id}:${record.generation}`))
        yield* insertLost(
          lost.map(({ message, row: record }) => [
            record.id,
            message?.queue,
            dialect.toBody(message?.body),
            now
          ])
        )
        yield* remove(
          endings.filter(({ row: record }) => record.ended === "Forgotten").map(({ row: record }) => record)
        )
        yield* updateEnded(
          endings
            .filter(({ row: record }) => record.ended !== "Forgotten")
            .map(({ crashes, ended, row: record }) => [
              record.id,
              ended,
              crashes,
              now,
              timeAfter(now, record.retention)
            ])
        )
      }),
    scheduleChecks: (checks) => Effect.asVoid(updateCheck(checks.map(({ at, record }) => [record.id, at]))),
    remove,
    removeDeadLetters: removeLetters,
    open: (openings, now) =>
      Effect.asVoid(updateOpened(openings.map(({ generation, row: record }) => [record.id, generation, now])))
  }
}
