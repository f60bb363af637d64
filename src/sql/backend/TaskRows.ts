/**
 * Reads rows of tasks for a change, and makes the changes that more than one operation makes.
 *
 * An operation locks and reads the rows, decides in this process, and writes its decisions with one statement for each
 * kind of change.
 */
import { Effect } from "effect"
import type { Start } from "../../BackendDriver.ts"
import { deadLetterId } from "../../internal/driver/deadLetterId.ts"
import type { ForcedEnd } from "../../internal/task/transitions.ts"
import { DELAYED } from "../broker/MessageRow.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { columns, isOutlived, shape, type TaskRow } from "./TaskRow.ts"
import { timeAfter } from "./times.ts"

/** A task that the store ends without the exit of a run (S4, S7–S9, L1–L3, C3, C4, W3). */
export interface TaskToEnd {
  readonly row: TaskRow
  readonly ended: ForcedEnd
  readonly crashes: number
  /** The message for the dead letter of a `WorkerLost`, where the row does not hold it. */
  readonly message?: Pick<Start, "queue" | "body">
}

/** A task that is opened as a new generation (S10, R2). */
export interface TaskToOpen {
  readonly row: TaskRow
  readonly generation: number
  /** Milliseconds for which the task is reserved (R2); `null`: its message is there (S10). */
  readonly reserved: number | null
}

/** The rows of tasks at one moment of the store's clock. */
export interface Snapshot {
  readonly now: number
  /** The rows by id, without those whose retention is over. */
  readonly rows: ReadonlyMap<string, TaskRow>
}

/** Reads and changes rows. All of it but `select` needs a transaction. */
export interface TaskRows {
  /** Reads rows by their ids, without a lock. */
  readonly select: (ids: ReadonlyArray<string>) => Effect.Effect<Snapshot, StoreError>
  /** Reads rows by their ids, locks them, and removes those whose retention is over. */
  readonly selectForUpdate: (ids: ReadonlyArray<string>) => Effect.Effect<Snapshot, StoreError>
  /** Sets the times at which the sweep checks tasks again; `null`: not before a change of the task sets one. */
  readonly scheduleChecks: (
    checks: ReadonlyArray<{ readonly row: TaskRow; readonly at: number | null }>
  ) => Effect.Effect<void, StoreError>
  /**
   * Ends tasks as `FAILURE`, and removes their messages that are not due yet. A `WorkerLost` leaves a dead letter; a
   * forgotten task is removed (F3).
   */
  readonly end: (tasks: ReadonlyArray<TaskToEnd>, now: number) => Effect.Effect<void, StoreError>
  readonly remove: (rows: ReadonlyArray<TaskRow>) => Effect.Effect<void, StoreError>
  /** Removes dead letters, which others with the same ids replace. */
  readonly removeDeadLetters: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Opens tasks for a new generation: back to `PENDING`, with nothing counted and no expiry. */
  readonly open: (tasks: ReadonlyArray<TaskToOpen>, now: number) => Effect.Effect<void, StoreError>
}

/** Matches rows by the `id` of a batch and returns the ids, for `batchedUpdate`. */
export const matchById = {
  where: "t.id = batch.id",
  key: ["id", "text"],
  returning: ["id"]
} as const

/** Assigns the check of a task that ends when its lease is over (L2). */
export const checkAtLeaseEnd = `check_at = CASE WHEN check_at < lease_until THEN check_at ELSE lease_until END`

/** Returns when the sweep checks a task `t` that has ended and is removed at a time: then, or at an earlier check. */
export const checkUntil = (removeAt: string): string =>
  `CASE WHEN t.check_at <= ${removeAt} THEN t.check_at ELSE ${removeAt} END`

/** Clears the columns that are set only while a run is open. */
export const clearRun = { lease_until: "NULL", body_queue: "NULL", body: "NULL" } as const

const makeInsertLostLetters = ({ batched, table }: Database) =>
  batched(
    { id: "text", letter_id: "text", queue: "text", body: "body", at: "integer" },
    (batch) =>
      `INSERT INTO ${table("dead_letters")} (
        id, task_id, task, incarnation, generation, queue, reason, worker, attempts, at, task_retention, fence,
        remove_at, body
      )
      SELECT batch.letter_id, t.id, t.task, t.incarnation, t.generation, COALESCE(t.body_queue, batch.queue),
        'WorkerLost', t.worker, t.attempt, batch.at, t.retention, t.fence, batch.at + t.letter_retention,
        COALESCE(t.body, batch.body)
      FROM ${batch} JOIN ${table("tasks")} AS t ON t.id = batch.id
      WHERE COALESCE(t.body, batch.body) IS NOT NULL`
  )

const makeUpdateEnded = ({ batchedUpdate }: Database) =>
  batchedUpdate({
    table: "tasks",
    columns: { id: "text", ended: "text", crashes: "integer", at: "integer", remove_at: "integer" },
    set: {
      state: "'FAILURE'",
      ended: "batch.ended",
      crashes: "batch.crashes",
      finished_at: "batch.at",
      remove_at: "batch.remove_at",
      check_at: checkUntil("batch.remove_at"),
      token: "NULL",
      due_at: "NULL",
      ...clearRun
    },
    ...matchById
  })

const makeUpdateOpened = ({ batchedUpdate }: Database) =>
  batchedUpdate({
    table: "tasks",
    columns: { id: "text", generation: "integer", at: "integer", reserved_until: "integer" },
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
      published: "CASE WHEN batch.reserved_until IS NULL THEN 1 ELSE 0 END",
      enqueued_at: "batch.at",
      started_at: "NULL",
      finished_at: "NULL",
      expires_at: "NULL",
      due_at: "NULL",
      remove_at: "batch.reserved_until",
      progress: "NULL",
      outcome: "NULL",
      history: "NULL",
      check_at: `CASE WHEN batch.reserved_until IS NULL THEN COALESCE(t.check_at, batch.at + t.retention)
        ELSE ${checkUntil("batch.reserved_until")} END`,
      ...clearRun
    },
    ...matchById
  })

/**
 * Prepares the removal of the messages of tasks that are not due yet, by the index of delayed messages. It passes over
 * messages that another transaction has locked: a claim makes them ready, and they are dropped when they are claimed.
 */
const makeRemoveDelayed = ({ deleteByKeys, dialect, reader, run, table }: Database) => {
  const { byIndex, delayedId, inList, list, skipLocked } = dialect
  const select = `SELECT seq FROM ${byIndex(table("messages"), "messages_delayed")}
    WHERE ${inList(delayedId, "text")} AND state = ${DELAYED} ${skipLocked}`
  const read = reader<{ readonly seq: number }>("messages", { seq: Row.integer })
  const remove = deleteByKeys<number>({ table: "messages", key: ["seq", "integer"] })
  return (ids: ReadonlyArray<string>): Effect.Effect<void, StoreError> =>
    ids.length === 0
      ? Effect.void
      : Effect.flatMap(Effect.flatMap(run(select, [list(ids)]), read), (rows) =>
          Effect.asVoid(remove(rows.map(({ seq }) => seq)))
        )
}

/** Makes the changes over one database. */
export const make = (db: Database): TaskRows => {
  const tasks = db.table("tasks")
  const { dialect } = db

  const read = db.reader<TaskRow & { readonly now: number }>("tasks", { ...shape, now: Row.integer })
  const select = `SELECT ${columns}, ${dialect.now} AS now FROM ${tasks} WHERE ${dialect.inList("id", "text")}`
  // in the order of the ids, so that two transactions do not deadlock
  const selectForUpdate = `SELECT ${columns}, ${dialect.now} AS now FROM ${dialect.byIndex(tasks)}
    WHERE ${dialect.inList("id", "text")} ORDER BY id ${dialect.forUpdate}`
  const deleteDeadLetters = db.deleteByKeys<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id"
  })
  const deleteTasks = db.deleteByKeys<string>({ table: "tasks", key: ["id", "text"] })
  const insertLostLetters = makeInsertLostLetters(db)
  const updateEnded = makeUpdateEnded(db)
  const updateOpened = makeUpdateOpened(db)
  const removeDelayed = makeRemoveDelayed(db)
  const updateCheck = db.batchedUpdate({
    table: "tasks",
    columns: { id: "text", at: "integer" },
    set: { check_at: "batch.at" },
    ...matchById
  })

  const remove: TaskRows["remove"] = (rows) => Effect.asVoid(deleteTasks(rows.map(({ id }) => id)))

  const snapshot = (text: string, ids: ReadonlyArray<string>) =>
    Effect.flatMap(Effect.flatMap(db.run(text, [dialect.list(ids)]), read), (found) =>
      Effect.map(found.length === 0 ? db.now : Effect.succeed(found[0]!.now), (now) => {
        const rows = new Map<string, TaskRow>()
        const outlived: Array<TaskRow> = []
        for (const row of found) {
          if (isOutlived(row, now)) outlived.push(row)
          else rows.set(row.id, row)
        }
        return { now, rows, outlived }
      })
    )

  const end = Effect.fnUntraced(function* (
    endings: ReadonlyArray<TaskToEnd>,
    now: number
  ): Effect.fn.Return<void, StoreError> {
    const lost = endings.filter(({ ended }) => ended === "WorkerLost")
    const letterIds = lost.map(({ row }) => deadLetterId(row.id, row))
    yield* deleteDeadLetters(letterIds)
    yield* insertLostLetters(
      lost.map(({ message, row }, index) => ({
        id: row.id,
        letter_id: letterIds[index],
        queue: message?.queue,
        body: message?.body,
        at: now
      }))
    )
    yield* remove(endings.filter(({ row }) => row.ended === "Forgotten").map(({ row }) => row))
    yield* updateEnded(
      endings
        .filter(({ row }) => row.ended !== "Forgotten")
        .map(({ crashes, ended, row }) => ({
          id: row.id,
          ended,
          crashes,
          at: now,
          remove_at: timeAfter(now, row.retention)
        }))
    )
    yield* removeDelayed(endings.map(({ row }) => row.id))
  })

  return {
    select: (ids) => snapshot(select, ids),
    selectForUpdate: (ids) =>
      Effect.flatMap(snapshot(selectForUpdate, ids), ({ outlived, ...found }) =>
        Effect.as(remove(outlived), found)
      ),
    end,
    scheduleChecks: (checks) => Effect.asVoid(updateCheck(checks.map(({ at, row }) => ({ id: row.id, at })))),
    remove,
    removeDeadLetters: (ids) => Effect.asVoid(deleteDeadLetters(ids)),
    open: (openings, now) =>
      Effect.asVoid(
        updateOpened(
          openings.map(({ generation, reserved, row }) => ({
            id: row.id,
            generation,
            at: now,
            reserved_until: timeAfter(now, reserved)
          }))
        )
      )
  }
}
