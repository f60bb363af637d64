/**
 * Settles runs: writes the outcome, and with a final failure its dead letter, in one step, if the run still holds its
 * task.
 */
import { Effect } from "effect"
import type { NewDeadLetter, Outcome, Settled, Settlement } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { maxHistorySize } from "../../internal/defaults.ts"
import { deadLetterId } from "../../internal/driver/deadLetterId.ts"
import { decideSettle, stateAfterRetries } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import type { Indexed } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import { type TaskRow, toFacts } from "./TaskRow.ts"
import { checkUntil, clearRun, matchById, type Snapshot, type TaskRows } from "./TaskRows.ts"
import { timeAfter } from "./times.ts"

type FinalOutcome = Extract<Outcome, { readonly _tag: "Success" | "Failure" }>

/** A settlement whose outcome is final. */
export type FinalSettlement = Settlement & { readonly outcome: FinalOutcome }

/** Returns whether an outcome is final and leaves no dead letter: then one update settles the open run. */
export const isPlain = (settlement: Settlement): settlement is FinalSettlement => {
  const { outcome } = settlement
  return outcome._tag === "Success" || (outcome._tag === "Failure" && outcome.deadLetter === undefined)
}

/** The columns of a batch of final outcomes. */
export const finalColumns = {
  id: "text",
  token: "text",
  state: "text",
  outcome: "text",
  retention: "integer"
} as const

/** Returns the row of such a batch. */
export const toFinalRow = (
  id: string,
  token: string,
  { _tag, exit, retentionMillis }: FinalOutcome
): BatchRow<typeof finalColumns> => ({
  id,
  token,
  state: _tag === "Success" ? "SUCCESS" : "FAILURE",
  outcome: exit,
  retention: toMillis(retentionMillis)
})

const waitingColumns = {
  id: "text",
  state: "text",
  attempt: "integer",
  retries: "integer",
  due_at: "integer",
  failure: "text"
} as const

const cancelledColumns = { id: "text", at: "integer", remove_at: "integer" } as const

const deadLetterColumns = {
  id: "text",
  letter_id: "text",
  reason: "text",
  queue: "text",
  body: "body",
  outcome: "text",
  at: "integer",
  remove_at: "integer",
  retention: "integer"
} as const

const makeUpdateFinal = ({ batchedUpdate, dialect: { now } }: Database, where: string) =>
  batchedUpdate({
    table: "tasks",
    columns: finalColumns,
    set: {
      state: "batch.state",
      outcome: "batch.outcome",
      finished_at: now,
      retention: "batch.retention",
      remove_at: `${now} + batch.retention`,
      check_at: checkUntil(`${now} + batch.retention`),
      ...clearRun
    },
    where,
    key: matchById.key,
    returning: matchById.returning
  })

/** Prepares the statements of a settlement. */
const makeStatements = (db: Database) => {
  const { batched, batchedUpdate, dialect, reader, table } = db
  return {
    /** T3, where the run is open and its task is not forgotten: what most settlements find. */
    finishOpen: makeUpdateFinal(
      db,
      "t.id = batch.id AND t.token = batch.token AND t.state = 'STARTED' AND t.ended IS NULL"
    ),
    /** T3, after a decision over the locked row. */
    finishDecided: makeUpdateFinal(db, matchById.where),
    readIds: reader<{ readonly id: string }>("tasks", { id: Row.text }),
    /** T3, of retries and releases. */
    updateWaiting: batchedUpdate({
      table: "tasks",
      columns: waitingColumns,
      set: {
        state: "batch.state",
        attempt: "batch.attempt",
        retries: "batch.retries",
        due_at: "batch.due_at",
        history: `CASE WHEN batch.failure IS NULL THEN t.history
          ELSE ${dialect.last(dialect.concat("COALESCE(t.history, '')", "batch.failure"), maxHistorySize)} END`,
        // the sweep may have checked the task while it ran, when it could not expire
        check_at:
          "CASE WHEN t.check_at IS NULL OR t.check_at > t.expires_at THEN t.expires_at ELSE t.check_at END",
        ...clearRun
      },
      ...matchById
    }),
    /** T2 */
    updateCancelled: batchedUpdate({
      table: "tasks",
      columns: cancelledColumns,
      set: {
        state: "'FAILURE'",
        ended: "'Cancelled'",
        finished_at: "batch.at",
        remove_at: "batch.remove_at",
        check_at: checkUntil("batch.remove_at"),
        ...clearRun
      },
      ...matchById
    }),
    insertDeadLetters: batched(
      deadLetterColumns,
      (batch) =>
        `INSERT INTO ${table("dead_letters")} (
          id, task_id, task, incarnation, generation, queue, reason, worker, attempts, at, task_retention, fence,
          remove_at, outcome, body
        )
        SELECT batch.letter_id, t.id, t.task, t.incarnation, t.generation, batch.queue, batch.reason, t.worker,
          t.attempt, batch.at, batch.retention, t.fence, batch.remove_at, batch.outcome, batch.body
        FROM ${batch} JOIN ${table("tasks")} AS t ON t.id = batch.id`
    ),
    selectOutcomes: `SELECT id, outcome FROM ${table("tasks")} WHERE ${dialect.inList("id", "text")}`,
    readOutcomes: reader<{ readonly id: string; readonly outcome: string | null }>("tasks", {
      id: Row.text,
      outcome: Row.orNull(Row.text)
    })
  }
}

/** What decisions over locked rows come to. */
interface SettlePlan {
  readonly finals: Array<BatchRow<typeof finalColumns>>
  readonly waiting: Array<BatchRow<typeof waitingColumns>>
  readonly cancelled: Array<BatchRow<typeof cancelledColumns>>
  readonly deadLetters: Array<BatchRow<typeof deadLetterColumns>>
  /** F3 */
  readonly forgotten: Array<TaskRow>
  /** T4: final settlements that repeat a stored one if the exit is the same. */
  readonly repeated: Array<{ readonly index: number; readonly id: string; readonly exit: string | null }>
}

const toDeadLetterRow = (
  row: TaskRow,
  { body, queue, reason, retentionMillis }: NewDeadLetter,
  outcome: FinalOutcome,
  now: number
): BatchRow<typeof deadLetterColumns> => ({
  id: row.id,
  letter_id: deadLetterId(row.id, row),
  reason,
  queue,
  body,
  outcome: outcome.exit,
  at: now,
  remove_at: timeAfter(now, retentionMillis),
  retention: toMillis(outcome.retentionMillis)
})

/** Adds the writes of an outcome of the open run (T3). */
const planOutcome = (plan: SettlePlan, row: TaskRow, { outcome, token }: Settlement, now: number): void => {
  const { id } = row
  if (outcome._tag === "Retry") {
    plan.waiting.push({
      id,
      state: "RETRY",
      attempt: row.attempt,
      retries: row.retries + 1,
      due_at: timeAfter(now, outcome.afterMillis),
      failure: outcome.failure
    })
  } else if (outcome._tag === "Release") {
    const state = stateAfterRetries(row.retries)
    plan.waiting.push({
      id,
      state,
      attempt: row.attempt - 1,
      retries: row.retries,
      due_at: null,
      failure: null
    })
  } else {
    if (outcome._tag === "Failure" && outcome.deadLetter !== undefined) {
      plan.deadLetters.push(toDeadLetterRow(row, outcome.deadLetter, outcome, now))
    }
    if (row.ended === "Forgotten") plan.forgotten.push(row)
    else plan.finals.push(toFinalRow(id, token, outcome))
  }
}

/** Decides a batch over locked rows, and sets the answers that need no further statement. */
const makePlan = (
  items: ReadonlyArray<Indexed<Settlement>>,
  { now, rows }: Snapshot,
  answers: Array<Settled>,
  changed: Array<string>
): SettlePlan => {
  const plan: SettlePlan = {
    finals: [],
    waiting: [],
    cancelled: [],
    deadLetters: [],
    forgotten: [],
    repeated: []
  }
  for (const { index, item } of items) {
    const { outcome, token } = item
    const row = rows.get(item.id)
    const decision = decideSettle(row === undefined ? undefined : toFacts(row), token, outcome._tag)
    if (row === undefined) {
      answers[index] = "Lost"
      continue
    }
    switch (decision) {
      case "CompareExit":
        plan.repeated.push({ index, id: row.id, exit: "exit" in outcome ? outcome.exit : null })
        break
      case "Write":
        planOutcome(plan, row, item, now)
        answers[index] = "Stored"
        changed.push(row.id)
        break
      case "Cancel":
        if (row.ended === "Forgotten") plan.forgotten.push(row)
        else plan.cancelled.push({ id: row.id, at: now, remove_at: timeAfter(now, row.retention) })
        answers[index] = "Cancelled"
        changed.push(row.id)
        break
      case "Stored":
      case "Cancelled":
      case "Lost":
        answers[index] = decision
    }
  }
  return plan
}

/** Settles runs over one database. Needs a transaction. */
export const makeSettle = (
  db: Database,
  taskRows: TaskRows
): ((batch: Batch<Settlement>) => Effect.Effect<BatchResult<Settled>, StoreError>) => {
  const statements = makeStatements(db)

  /** Writes the plain outcomes of open runs; returns the ids of those that it found open. */
  const finishOpen = (items: ReadonlyArray<Indexed<Settlement>>) => {
    const plain = items.map(({ item }) => item).filter(isPlain)
    // in the order of the ids, in which all transactions lock rows
    plain.sort((one, other) => (one.id < other.id ? -1 : 1))
    const rows = plain.map(({ id, outcome, token }) => toFinalRow(id, token, outcome))
    return Effect.map(
      Effect.flatMap(statements.finishOpen(rows), statements.readIds),
      (stored) => new Set(stored.map(({ id }) => id))
    )
  }

  /** Answers repeated final settlements (T4, T7). */
  const compareExits = Effect.fnUntraced(function* (
    repeated: SettlePlan["repeated"],
    answers: Array<Settled>
  ): Effect.fn.Return<void, StoreError> {
    if (repeated.length === 0) return
    const ids = db.dialect.list(repeated.map(({ id }) => id))
    const rows = yield* statements.readOutcomes(yield* db.run(statements.selectOutcomes, [ids]))
    const outcomes = new Map(rows.map(({ id, outcome }) => [id, outcome]))
    for (const { exit, id, index } of repeated) answers[index] = outcomes.get(id) === exit ? "Stored" : "Lost"
  })

  const settle: DistinctBatchOperation<Settlement, Settled> = (items, answers, changed) =>
    Effect.gen(function* () {
      const finished = yield* finishOpen(items)
      const rest: Array<Indexed<Settlement>> = []
      for (const indexed of items) {
        const { id } = indexed.item
        if (!finished.has(id)) {
          rest.push(indexed)
          continue
        }
        answers[indexed.index] = "Stored"
        changed.push(id)
      }
      if (rest.length === 0) return

      const snapshot = yield* taskRows.selectForUpdate(rest.map(({ item }) => item.id))
      const plan = makePlan(rest, snapshot, answers, changed)
      yield* taskRows.removeDeadLetters(plan.deadLetters.map((row) => row.letter_id!))
      yield* statements.insertDeadLetters(plan.deadLetters)
      yield* taskRows.remove(plan.forgotten)
      yield* statements.finishDecided(plan.finals)
      yield* statements.updateWaiting(plan.waiting)
      yield* statements.updateCancelled(plan.cancelled)
      yield* compareExits(plan.repeated, answers)
    })

  return byDistinctBatches(settle)
}
