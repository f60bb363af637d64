/** Compares everything that can be read from a store with the model. */
import { isDeepStrictEqual } from "node:util"
import { Effect, Schedule } from "effect"
import type { DeadLetter, TaskRecord } from "../../src/BackendDriver.ts"
import type { Batch, QueueCounts } from "../../src/BrokerDriver.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { inModelTime, toDeadLetter } from "./deadLetters.ts"
import { definitions } from "./definitions.ts"
import * as Messages from "./messages.ts"
import type { ModelRunner } from "./modelRunner.ts"
import type { Operation } from "./modelState.ts"
import * as Tasks from "./tasks.ts"

const recordOf = (task: Tasks.Task): TaskRecord => ({
  id: task.id,
  task: task.task,
  state: task.state,
  incarnation: task.incarnation,
  queue: task.queue,
  generation: task.generation,
  attempt: task.attempt,
  retries: task.retries,
  crashes: task.crashes,
  exit: task.exit,
  progress: task.progress,
  worker: task.worker,
  cancelRequested: task.cancelRequested,
  ended: task.ended,
  enqueuedAt: task.enqueuedAt,
  startedAt: task.startedAt,
  finishedAt: task.finishedAt,
  expiresAt: task.expiresAt,
  dueAt: task.dueAt
})

/** Compares the failures of attempts: a retry adds one, a success none, and a replay begins without. */
const compareHistories = Effect.fnUntraced(function* (runner: ModelRunner, ids: Batch<string>) {
  const { readHistory } = runner.backend
  const expected = ids.map((id) => Tasks.find(runner.tasks, id, runner.now)?.history ?? "")
  if (readHistory === undefined) return
  const found = yield* runner.call(readHistory(ids))
  yield* runner.assertEqual(
    "the histories",
    Object.fromEntries(ids.map((id, n) => [id, found[n] ?? ""])),
    Object.fromEntries(ids.map((id, n) => [id, expected[n]]))
  )
})

const compareTasks = Effect.fnUntraced(function* (runner: ModelRunner, watch: boolean) {
  yield* runner.followStore
  const [first, ...others] = runner.ids
  const ids = [first!, ...others] as const
  const records = yield* runner.call(runner.backend[watch ? "subscribe" : "read"](ids))
  for (const [n, id] of ids.entries()) {
    const record = records[n]
    const expected = runner.applyModel(Tasks.read(runner.tasks, id, runner.now))
    const times = record && {
      ...record,
      enqueuedAt: runner.toModelTime(record.enqueuedAt, expected?.enqueuedAt ?? null),
      startedAt: runner.toModelTime(record.startedAt, expected?.startedAt ?? null),
      finishedAt: runner.toModelTime(record.finishedAt, expected?.finishedAt ?? null),
      expiresAt: runner.toModelTime(record.expiresAt, expected?.expiresAt ?? null),
      dueAt: runner.toModelTime(record.dueAt ?? null, expected?.dueAt ?? null)
    }
    yield* runner.assertEqual(`the record of ${id}`, times, expected && recordOf(expected))
    yield* runner.assertInvariant(runner.invariants.onRead(id, record))
  }
  if (watch) yield* runner.call(runner.backend.unsubscribe(ids))
  yield* compareHistories(runner, ids)
})

const compareDeadLetters = Effect.fnUntraced(function* (runner: ModelRunner) {
  const { backend, now, tasks } = runner
  const expected = Tasks.deadLettersOf(tasks, undefined, now)
  const listed = yield* runner.call(backend.listDeadLetters({ limit: 1000 }))
  // letters of the same moment are in no order
  const byId = new Map(listed.map((letter) => [letter.id, letter]))
  const aligned = expected.map((letter) => inModelTime(runner, byId.get(letter.id), letter))
  yield* runner.assertEqual("how many dead letters there are", listed.length, expected.length)
  yield* runner.assertEqual("the dead letters", aligned, expected.map(toDeadLetter))
  const times = listed.map(({ at }) => at)
  const newestFirst = times.toSorted((one, other) => other - one)
  yield* runner.assertEqual("the times of the dead letters, newest first", times, newestFirst)
  const letterIds = listed.map(({ id }) => id)
  const read = yield* runner.call(backend.getDeadLetters(["unknown", ...letterIds]))
  yield* runner.assertEqual("the dead letters by their ids", read, [undefined, ...listed])
  const paged: Array<string> = []
  for (let after: DeadLetter | undefined; ;) {
    const page = yield* runner.call(backend.listDeadLetters({ limit: 2, after }))
    if (page.length === 0) break
    paged.push(...page.map(({ id }) => id))
    after = page.at(-1)
  }
  yield* runner.assertEqual("the dead letters page by page", paged, letterIds)
  for (const task of [undefined, ...definitions.map(({ name }) => name)]) {
    const count = yield* runner.call(backend.countDeadLetters(task))
    yield* runner.assertEqual(
      `the dead letters of ${task}`,
      count,
      Tasks.deadLettersOf(tasks, task, now).length
    )
  }
})

/** Counts without the split into ready and delayed, for brokers whose messages are in transit for a while. */
const withoutDelayed = (counts: ReadonlyArray<QueueCounts>) =>
  counts.map(({ claimed, delayed, ready }) => ({ claimed, waiting: delayed + ready }))

/** Returns the expected count, or the store's if it lacks no more than the messages that may be gone. */
const inRange = (found: number, expected: number, fewer: number): number =>
  found <= expected && found >= expected - fewer ? found : expected

const alignCounts = (found: QueueCounts, { counts, fewer }: Messages.Counted): QueueCounts => ({
  ready: inRange(found.ready, counts.ready, fewer.ready),
  delayed: inRange(found.delayed, counts.delayed, fewer.delayed),
  claimed: counts.claimed
})

const compareMessages = Effect.fnUntraced(function* (runner: ModelRunner) {
  const { queues } = runner.setting
  const counting = Effect.map(runner.broker.counts(queues), withoutAges)
  const counted = queues.map((queue) => Messages.counts(runner.messages, queue, runner.now))
  const expected = counted.map(({ counts }) => counts)
  if (runner.broker.capabilities.lease === "store") {
    const found = yield* runner.call(counting)
    const aligned = counted.map((one, n) =>
      found[n] === undefined ? one.counts : alignCounts(found[n], one)
    )
    return yield* runner.assertEqual("the counts", found, aligned)
  }
  // a message in transit may be counted twice
  const settled = yield* Effect.repeat(Effect.orDie(counting), {
    schedule: Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(40)]),
    until: (found) => isDeepStrictEqual(withoutDelayed(found), withoutDelayed(expected))
  })
  yield* runner.assertEqual("the counts", withoutDelayed(settled), withoutDelayed(expected))
})

/** Compares tasks, dead letters and messages. Reading them ends overdue tasks. */
export const compareState = (runner: ModelRunner, watch: boolean): Operation =>
  Effect.andThen(
    compareTasks(runner, watch),
    Effect.all([compareDeadLetters(runner), compareMessages(runner)], { concurrency: 2, discard: true })
  )

/** Compares after every command; in real time only the tasks, to save time. */
export const compareAfterCommand = (runner: ModelRunner): Operation =>
  runner.setting.live ? compareTasks(runner, false) : compareState(runner, false)
