/**
 * Settles runs: the outcome, and with a final failure its dead letter, in one step, if the run still holds its task.
 */
import { Effect } from "effect"
import type { Settled, Settlement } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type Database, toMillis, type StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** A final outcome that leaves no dead letter. */
export const isPlain = ({ outcome }: Settlement): boolean =>
  outcome._tag === "Success" || (outcome._tag === "Failure" && outcome.deadLetter === undefined)

/** What a settlement comes to. `SameExit`: it is a repetition if the exit that is stored is the same. */
type SettleDecision = "Write" | "Cancel" | "SameExit" | Settled

const decideSettle = (
  record: TaskRows.TaskRow | undefined,
  { outcome, token }: Settlement
): SettleDecision => {
  if (record === undefined || record.token !== token) return "Lost"
  const { _tag } = outcome
  const putBack = _tag === "Retry" || _tag === "Release"
  switch (record.state) {
    case "STARTED":
      return putBack && record.cancel_requested === 1 ? "Cancel" : "Write"
    case "SUCCESS":
      return _tag === "Success" ? "SameExit" : "Lost"
    case "FAILURE":
      if (record.ended === "Cancelled") return putBack ? "Cancelled" : "Lost"
      return _tag === "Failure" ? "SameExit" : "Lost"
    case "PENDING":
    case "RETRY":
      // a retry left the time when it is due, a release none
      return _tag === (record.due_at === null ? "Release" : "Retry") ? "Stored" : "Lost"
  }
}

/** What a final outcome writes to the row `t` of a task, from a row of a batch. */
export const assignments = (now: string): Readonly<Record<string, string>> => ({
  state: "batch.state",
  outcome: "batch.outcome",
  finished_at: now,
  retention: "batch.retention",
  remove_at: `${now} + batch.retention`,
  check_at: `COALESCE(t.check_at, ${now} + batch.retention)`,
  ...TaskRows.clearRun
})

/** The columns of such a batch. */
export const columns = {
  id: "text",
  token: "text",
  state: "text",
  outcome: "text",
  retention: "integer"
} as const

/** The run that settles is the one that is open: what most settlements find. */
export const isOpen = "t.id = batch.id AND t.token = batch.token AND t.state = 'STARTED' AND t.ended IS NULL"

/** A final outcome, as a row of the batch; of others there is none. */
export const toFinal = ({ id, outcome, token }: Settlement): ReadonlyArray<unknown> =>
  outcome._tag === "Success" || outcome._tag === "Failure"
    ? [
        id,
        token,
        outcome._tag === "Success" ? "SUCCESS" : "FAILURE",
        outcome.exit,
        toMillis(outcome.retentionMillis)
      ]
    : []

/** Settles, over one database. Belongs into a transaction. */
export const make = (
  db: Database,
  records: TaskRows.TaskRows
): ((batch: Batch<Settlement>) => Effect.Effect<BatchResult<Settled>, StoreError>) => {
  const { dialect } = db
  const tasks = db.table("tasks")
  const letters = db.table("dead_letters")

  const finishing = (where: string) =>
    db.updating({
      table: "tasks",
      columns,
      set: assignments(dialect.now),
      where,
      key: TaskRows.matchById.key,
      returning: TaskRows.matchById.returning
    })
  const finishDecided = finishing(TaskRows.matchById.where)
  // what most settlements come to, without a look before
  const finishStarted = finishing(isOpen)
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const updateWaiting = db.updating({
    table: "tasks",
    columns: { id: "text", state: "text", attempt: "integer", retries: "integer", due_at: "integer" },
    set: {
      state: "batch.state",
      attempt: "batch.attempt",
      retries: "batch.retries",
      due_at: "batch.due_at",
      ...TaskRows.clearRun
    },
    ...TaskRows.matchById
  })
  const updateCancelled = db.updating({
    table: "tasks",
    columns: { id: "text", at: "integer", remove_at: "integer" },
    set: {
      state: "'FAILURE'",
      ended: "'Cancelled'",
      finished_at: "batch.at",
      remove_at: "batch.remove_at",
      check_at: "COALESCE(t.check_at, batch.remove_at)",
      ...TaskRows.clearRun
    },
    ...TaskRows.matchById
  })
  const insertLetters = db.batched(
    {
      id: "text",
      reason: "text",
      queue: "text",
      body: "text",
      outcome: "text",
      at: "integer",
      remove_at: "integer",
      retention: "integer"
    },
    (batch) =>
      `INSERT INTO ${letters}
        (id, task_id, task, generation, queue, reason, worker, attempts, at, task_retention, fence, remove_at, outcome, body)
      SELECT ${dialect.concat("t.id", "':'", "t.generation")}, t.id, t.task, t.generation, batch.queue, batch.reason,
        t.worker, t.attempt, batch.at, batch.retention, t.fence, batch.remove_at, batch.outcome, batch.body
      FROM ${batch} JOIN ${tasks} AS t ON t.id = batch.id`
  )
  const selectOutcomes = `SELECT id, outcome FROM ${tasks} WHERE ${dialect.inList("id", "text")}`
  const readOutcomes = db.reader<{ readonly id: string; readonly outcome: string | null }>("tasks", {
    id: Row.text,
    outcome: Row.orNull(Row.text)
  })

  const round: DistinctBatchOperation<Settlement, Settled> = (items, answers, changed) =>
    Effect.gen(function* () {
      const stored = yield* Effect.flatMap(
        finishStarted(
          items
            .filter(({ item }) => isPlain(item))
            .map(({ item }) => item)
            .sort((one, other) => (one.id < other.id ? -1 : 1))
            .map(toFinal)
        ),
        readIds
      )
      const done = new Set(stored.map(({ id }) => id))
      const rest = done.size === 0 ? items : items.filter(({ item }) => !done.has(item.id))
      if (done.size > 0) {
        for (const { index, item } of items) {
          if (!done.has(item.id)) continue
          answers[index] = "Stored"
          changed.push(item.id)
        }
      }
      if (rest.length === 0) return

      const { now, rows: found } = yield* records.selectForUpdate(rest.map(({ item }) => item.id))
      const finals: Array<ReadonlyArray<unknown>> = []
      const waiting: Array<ReadonlyArray<unknown>> = []
      const cancelled: Array<ReadonlyArray<unknown>> = []
      const deadLetters: Array<ReadonlyArray<unknown>> = []
      const letterIds: Array<string> = []
      const forgotten: Array<TaskRows.TaskRow> = []
      const repeated: Array<{ readonly index: number; readonly id: string; readonly exit: string | null }> =
        []
      for (const { index, item } of rest) {
        const record = found.get(item.id)
        const decision = decideSettle(record, item)
        if (record === undefined) {
          answers[index] = "Lost"
          continue
        }
        if (decision === "SameExit") {
          repeated.push({ index, id: record.id, exit: "exit" in item.outcome ? item.outcome.exit : null })
          continue
        }
        if (decision !== "Write" && decision !== "Cancel") {
          answers[index] = decision
          continue
        }
        changed.push(item.id)
        answers[index] = decision === "Cancel" ? "Cancelled" : "Stored"
        const { outcome } = item
        const isForgotten = record.ended === "Forgotten"
        if (decision === "Cancel") {
          if (isForgotten) forgotten.push(record)
          else cancelled.push([record.id, now, TaskRows.timeAfter(now, record.retention)])
        } else if (outcome._tag === "Retry") {
          waiting.push([
            record.id,
            "RETRY",
            record.attempt,
            record.retries + 1,
            TaskRows.timeAfter(now, outcome.afterMillis)
          ])
        } else if (outcome._tag === "Release") {
          const state = record.retries > 0 ? "RETRY" : "PENDING"
          waiting.push([record.id, state, record.attempt - 1, record.retries, null])
        } else {
          const { exit, retentionMillis } = outcome
          if (outcome._tag === "Failure" && outcome.deadLetter !== undefined) {
            const { body, queue, reason, retentionMillis: kept } = outcome.deadLetter
            letterIds.push(`${record.id}:${record.generation}`)
            deadLetters.push([
              record.id,
              reason,
              queue,
              dialect.toBody(body),
              exit,
              now,
              TaskRows.timeAfter(now, kept),
              toMillis(retentionMillis)
            ])
          }
          if (isForgotten) forgotten.push(record)
          else finals.push(toFinal(item))
        }
      }
      yield* records.removeDeadLetters(letterIds)
      yield* insertLetters(deadLetters)
      yield* records.remove(forgotten)
      yield* finishDecided(finals)
      yield* updateWaiting(waiting)
      yield* updateCancelled(cancelled)
      if (repeated.length > 0) {
        const rows = yield* Effect.flatMap(
          db.run(selectOutcomes, [dialect.list(repeated.map(({ id }) => id))]),
          readOutcomes
        )
        const outcomes = new Map(rows.map(({ id, outcome }) => [id, outcome]))
        for (const { exit, id, index } of repeated)
          answers[index] = outcomes.get(id) === exit ? "Stored" : "Lost"
      }
    })

  return byDistinctBatches(round)
}
