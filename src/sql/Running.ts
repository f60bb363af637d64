/**
 * The life of a run: it starts, holds its lease, and is settled.
 */
import { Effect } from "effect"
import type { Batch, Renew, Renewed, Settled, Settlement, Start, Started } from "../BackendDriver.ts"
import { type Database, millis, type Numbered, rounds, type StoreError } from "./Database.ts"
import * as Records from "./Records.ts"
import * as Row from "./Row.ts"

/** Answers, and the ids whose state or progress changed. */
export interface Changed<A> {
  readonly answers: ReadonlyArray<A>
  readonly changed: ReadonlyArray<string>
}

/** The operations. Each belongs into a transaction. */
export interface Running {
  readonly start: (batch: Batch<Start>) => Effect.Effect<Changed<Started>, StoreError>
  readonly renew: (batch: Batch<Renew>) => Effect.Effect<Changed<Renewed>, StoreError>
  readonly settle: (batch: Batch<Settlement>) => Effect.Effect<Changed<Settled>, StoreError>
}

interface StartedRow {
  readonly id: string
  readonly fence: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
}

/** What a start comes to: an answer, and what to write. */
type StartDecision =
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Busy"; readonly millis: number }
  | { readonly _tag: "Again" }
  | { readonly _tag: "End"; readonly ended: Records.Ending["ended"]; readonly crashes: number }
  | { readonly _tag: "Run"; readonly crashed: boolean }

const decideStart = (record: Records.Current, start: Start, now: number): StartDecision => {
  const { crashes } = record
  if (record.state === "STARTED" && record.token === start.token) return { _tag: "Again" }
  if (Records.isFinal(record) || start.generation < record.generation) return { _tag: "Drop" }
  if (Records.isWaiting(record)) {
    const ended = Records.lapsed(record, now)
    if (ended !== undefined) return { _tag: "End", ended, crashes }
    const wait = (record.due_at ?? now) - now
    return wait > 0 ? { _tag: "Busy", millis: wait } : { _tag: "Run", crashed: false }
  }
  const held = (record.lease_until ?? now) - now
  if (held > 0) return { _tag: "Busy", millis: held }
  const lapsed = Records.lapsed(record, now)
  if (lapsed !== undefined) return { _tag: "End", ended: lapsed, crashes }
  if (record.cancel_requested === 1) return { _tag: "End", ended: "Cancelled", crashes: crashes + 1 }
  return crashes + 1 >= start.maxCrashes
    ? { _tag: "End", ended: "WorkerLost", crashes: crashes + 1 }
    : { _tag: "Run", crashed: true }
}

/** A final outcome that leaves no dead letter. */
const isPlain = ({ outcome }: Settlement): boolean =>
  outcome._tag === "Success" || (outcome._tag === "Failure" && outcome.deadLetter === undefined)

/** What a settlement comes to. `SameExit`: it is a repetition if the exit that is stored is the same. */
type SettleDecision = "Write" | "Cancel" | "SameExit" | Settled

const decideSettle = (
  record: Records.Current | undefined,
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

/** Over one database. */
export const make = (db: Database, records: Records.Records): Running => {
  const tasks = db.table("tasks")
  const letters = db.table("dead_letters")
  const { dialect } = db

  const insertMissing = db.batched(
    ["id", "task", "generation", "expires_at"],
    (batch) =>
      `INSERT INTO ${tasks} (id, task, payload_hash, published, state, generation, expires_at)
      SELECT batch.id, batch.task, '', 1, 'PENDING', batch.generation, batch.expires_at
      FROM ${batch} WHERE batch.id IS NOT NULL`
  )
  const starting = (where: string) =>
    db.updating({
      table: "tasks",
      columns: [
        "id",
        "generation",
        "token",
        "worker",
        "queue",
        "body",
        "crashes",
        "at_most_once",
        "lease",
        "retention",
        "letters"
      ],
      set: `state = 'STARTED', published = 1, attempt = t.attempt + 1, fence = t.fence + 1,
        crashes = t.crashes + batch.crashes, token = batch.token, worker = batch.worker, queue = batch.queue,
        body = batch.body, at_most_once = batch.at_most_once, started_at = COALESCE(t.started_at, ${dialect.now}),
        due_at = NULL, remove_at = NULL, lease_until = ${dialect.now} + batch.lease, retention = batch.retention,
        letter_retention = batch.letters`,
      where,
      returning: "id, fence, attempt, retries, crashes"
    })
  const startDecided = starting("t.id = batch.id")
  // what most starts come to, without a look before
  const startWaiting = starting(
    `t.id = batch.id AND t.generation = batch.generation AND t.state = 'PENDING' AND t.remove_at IS NULL
      AND (t.expires_at IS NULL OR t.expires_at > ${dialect.now})`
  )
  const toStart = (start: Start, crashes: number): ReadonlyArray<unknown> => [
    start.id,
    start.generation,
    start.token,
    start.worker,
    ...(start.delivery === "at-most-once" ? [start.queue, start.body] : [null, null]),
    crashes,
    start.delivery === "at-most-once",
    millis(start.leaseMillis),
    millis(start.retentionMillis),
    millis(start.letterRetentionMillis)
  ]
  const readStarted = db.reader<StartedRow>("tasks", {
    id: Row.text,
    fence: Row.integer,
    attempt: Row.integer,
    retries: Row.integer,
    crashes: Row.integer
  })
  const updateLease = db.updating({
    table: "tasks",
    columns: ["pk", "until", "progress"],
    set: "lease_until = batch.until, progress = COALESCE(batch.progress, t.progress)",
    where: "t.pk = batch.pk",
    returning: "pk"
  })
  const finishing = (where: string) =>
    db.updating({
      table: "tasks",
      columns: ["id", "token", "state", "exit", "retention"],
      set: `state = batch.state, exit = batch.exit, finished_at = ${dialect.now}, retention = batch.retention,
        remove_at = ${dialect.now} + batch.retention, lease_until = NULL, queue = NULL, body = NULL`,
      where,
      returning: "id"
    })
  const finishDecided = finishing("t.id = batch.id")
  // what most settlements come to, without a look before
  const finishStarted = finishing(
    "t.id = batch.id AND t.token = batch.token AND t.state = 'STARTED' AND t.ended IS NULL"
  )
  const toFinal = ({ id, outcome, token }: Settlement): ReadonlyArray<unknown> =>
    outcome._tag === "Success" || outcome._tag === "Failure"
      ? [
          id,
          token,
          outcome._tag === "Success" ? "SUCCESS" : "FAILURE",
          outcome.exit,
          millis(outcome.retentionMillis)
        ]
      : []
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const updateWaiting = db.updating({
    table: "tasks",
    columns: ["pk", "state", "attempt", "retries", "due_at"],
    set: `state = batch.state, attempt = batch.attempt, retries = batch.retries, due_at = batch.due_at,
      lease_until = NULL, queue = NULL, body = NULL`,
    where: "t.pk = batch.pk",
    returning: "pk"
  })
  const updateCancelled = db.updating({
    table: "tasks",
    columns: ["pk", "at", "remove_at"],
    set: `state = 'FAILURE', ended = 'Cancelled', finished_at = batch.at, remove_at = batch.remove_at,
      lease_until = NULL, queue = NULL, body = NULL`,
    where: "t.pk = batch.pk",
    returning: "pk"
  })
  const insertLetters = db.batched(
    ["pk", "reason", "queue", "body", "exit", "at", "remove_at", "retention"],
    (batch) =>
      `INSERT INTO ${letters}
        (id, task_id, task, generation, queue, reason, worker, attempts, at, task_retention, fence, remove_at, exit, body)
      SELECT t.id || ':' || t.generation, t.id, t.task, t.generation, batch.queue, batch.reason, t.worker, t.attempt,
        batch.at, batch.retention, t.fence, batch.remove_at, batch.exit, batch.body
      FROM ${batch} JOIN ${tasks} AS t ON t.pk = batch.pk`
  )

  const selectExits = `SELECT pk, exit FROM ${tasks} WHERE ${dialect.among("pk")}`
  const readExits = db.reader<{ readonly pk: number; readonly exit: string | null }>("tasks", {
    pk: Row.integer,
    exit: Row.orNull(Row.text)
  })

  const started = ({ attempt, crashes, fence, retries }: Omit<StartedRow, "id">): Started => ({
    _tag: "Run",
    fence,
    attempt,
    retries,
    crashes
  })

  const startRound = (
    items: ReadonlyArray<Numbered<Start>>,
    answers: Array<Started>,
    changed: Array<string>
  ) =>
    Effect.gen(function* () {
      const run = Effect.fnUntraced(function* (rows: ReadonlyArray<object>) {
        const byId = new Map((yield* readStarted(rows)).map((row) => [row.id, row]))
        return items.filter(({ index, item }) => {
          const row = byId.get(item.id)
          if (row === undefined) return answers[index] === undefined
          answers[index] = started(row)
          changed.push(item.id)
          return false
        })
      })
      const rest = yield* run(yield* startWaiting(items.map(({ item }) => toStart(item, 0))))
      if (rest.length === 0) return

      const ids = rest.map(({ item }) => item.id)
      const locked = yield* records.lock(ids)
      const { now } = locked
      let found = locked.records
      const missing = rest.filter(({ item }) => !found.has(item.id))
      if (missing.length > 0) {
        yield* insertMissing(
          missing.map(({ item }) => [
            item.id,
            item.task,
            item.generation,
            Records.after(now, item.expiresMillis)
          ])
        )
        found = (yield* records.lock(ids)).records
      }
      const endings: Array<Records.Ending> = []
      const openings: Array<Records.Opening> = []
      const runs: Array<ReadonlyArray<unknown>> = []
      const again: Array<ReadonlyArray<unknown>> = []
      for (const { index, item } of rest) {
        const record = found.get(item.id)!
        const decision = decideStart(record, item, now)
        switch (decision._tag) {
          case "Drop":
          case "Busy":
            answers[index] = decision
            break
          case "Again":
            again.push([record.pk, Records.after(now, item.leaseMillis), null])
            answers[index] = started(record)
            break
          case "End":
            endings.push({ record, ended: decision.ended, crashes: decision.crashes, message: item })
            answers[index] = { _tag: "Drop" }
            changed.push(item.id)
            break
          case "Run":
            if (item.generation > record.generation) {
              openings.push({ record, generation: item.generation })
              runs.push(toStart(item, 0))
            } else {
              runs.push(toStart(item, decision.crashed ? 1 : 0))
            }
        }
      }
      yield* records.end(endings, now)
      yield* records.open(openings, now)
      yield* updateLease(again)
      yield* run(yield* startDecided(runs))
    })

  const settleRound = (
    items: ReadonlyArray<Numbered<Settlement>>,
    answers: Array<Settled>,
    changed: Array<string>
  ) =>
    Effect.gen(function* () {
      const stored = yield* Effect.flatMap(
        finishStarted(items.filter(({ item }) => isPlain(item)).map(({ item }) => toFinal(item))),
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

      const { now, records: found } = yield* records.lock(rest.map(({ item }) => item.id))
      const finals: Array<ReadonlyArray<unknown>> = []
      const waiting: Array<ReadonlyArray<unknown>> = []
      const cancelled: Array<ReadonlyArray<unknown>> = []
      const deadLetters: Array<ReadonlyArray<unknown>> = []
      const letterIds: Array<string> = []
      const forgotten: Array<Records.Current> = []
      const repeated: Array<{ readonly index: number; readonly pk: number; readonly exit: string | null }> =
        []
      for (const { index, item } of rest) {
        const record = found.get(item.id)
        const decision = decideSettle(record, item)
        if (record === undefined) {
          answers[index] = "Lost"
          continue
        }
        if (decision === "SameExit") {
          repeated.push({ index, pk: record.pk, exit: "exit" in item.outcome ? item.outcome.exit : null })
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
          else cancelled.push([record.pk, now, Records.after(now, record.retention)])
        } else if (outcome._tag === "Retry") {
          waiting.push([
            record.pk,
            "RETRY",
            record.attempt,
            record.retries + 1,
            Records.after(now, outcome.afterMillis)
          ])
        } else if (outcome._tag === "Release") {
          const state = record.retries > 0 ? "RETRY" : "PENDING"
          waiting.push([record.pk, state, record.attempt - 1, record.retries, null])
        } else {
          const { exit, retentionMillis } = outcome
          if (outcome._tag === "Failure" && outcome.deadLetter !== undefined) {
            const { body, queue, reason, retentionMillis: kept } = outcome.deadLetter
            letterIds.push(`${record.id}:${record.generation}`)
            deadLetters.push([
              record.pk,
              reason,
              queue,
              body,
              exit,
              now,
              Records.after(now, kept),
              millis(retentionMillis)
            ])
          }
          if (isForgotten) forgotten.push(record)
          else finals.push(toFinal(item))
        }
      }
      yield* records.removeLetters(letterIds)
      yield* insertLetters(deadLetters)
      yield* records.remove(forgotten)
      yield* finishDecided(finals)
      yield* updateWaiting(waiting)
      yield* updateCancelled(cancelled)
      if (repeated.length > 0) {
        const rows = yield* Effect.flatMap(
          db.run(selectExits, [dialect.list(repeated.map(({ pk }) => pk))]),
          readExits
        )
        const exits = new Map(rows.map(({ exit, pk }) => [pk, exit]))
        for (const { exit, index, pk } of repeated)
          answers[index] = exits.get(pk) === exit ? "Stored" : "Lost"
      }
    })

  const renewRound = (
    items: ReadonlyArray<Numbered<Renew>>,
    answers: Array<Renewed>,
    changed: Array<string>
  ) =>
    Effect.gen(function* () {
      const { now, records: found } = yield* records.lock(items.map(({ item }) => item.id))
      const held: Array<ReadonlyArray<unknown>> = []
      for (const { index, item } of items) {
        const record = found.get(item.id)
        if (record === undefined || record.state !== "STARTED" || record.token !== item.token) {
          answers[index] = "Lost"
          continue
        }
        answers[index] = record.cancel_requested === 1 ? "CancelRequested" : "Held"
        held.push([record.pk, Records.after(now, item.leaseMillis), item.progress])
        if (item.progress !== undefined) changed.push(item.id)
      }
      yield* updateLease(held)
    })

  const inRounds =
    <Item extends { readonly id: string }, A>(
      round: (
        items: ReadonlyArray<Numbered<Item>>,
        answers: Array<A>,
        changed: Array<string>
      ) => Effect.Effect<void, StoreError>
    ) =>
    (batch: Batch<Item>): Effect.Effect<Changed<A>, StoreError> =>
      Effect.suspend(() => {
        const answers: Array<A> = []
        const changed: Array<string> = []
        return Effect.as(
          Effect.forEach(
            rounds(batch, (item) => item.id),
            (items) => round(items, answers, changed),
            {
              discard: true
            }
          ),
          { answers, changed }
        )
      })

  return {
    start: inRounds(startRound),
    renew: inRounds(renewRound),
    settle: inRounds(settleRound)
  }
}
