/** Everything that can be seen of a store has to be as in the model. */
import { isDeepStrictEqual } from "node:util"
import { Effect, Schedule } from "effect"
import type { DeadLetter, TaskRecord } from "../../src/BackendDriver.ts"
import type { QueueCounts } from "../../src/BrokerDriver.ts"
import { ids } from "./commands.ts"
import { definitions } from "./definitions.ts"
import * as Messages from "./messages.ts"
import type { Did, Player } from "./modelRunner.ts"
import * as Tasks from "./tasks.ts"

const recordOf = (task: Tasks.Task): TaskRecord => ({
  id: task.id,
  task: task.task,
  state: task.state,
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
  expiresAt: task.expiresAt
})

/** A letter as a store tells of it. */
export const letterOf = (letter: Tasks.Letter): DeadLetter => ({
  id: letter.id,
  taskId: letter.taskId,
  task: letter.task,
  generation: letter.generation,
  queue: letter.queue,
  reason: letter.reason,
  exit: letter.exit,
  worker: letter.worker,
  body: letter.body,
  attempts: letter.attempts,
  at: letter.at
})

/** A letter of the store, with its time as the model counts it. */
export const inModelTime = (on: Player, store: DeadLetter | undefined, model: Tasks.Letter | undefined) =>
  store === undefined || model === undefined ? store : { ...store, at: on.time(store.at, model.at) }

const lookAtTasks = Effect.fnUntraced(function* (on: Player, watch: boolean) {
  yield* on.follow
  const records = yield* on.ask(on.backend[watch ? "subscribe" : "read"](ids))
  for (const [n, id] of ids.entries()) {
    const record = records[n]
    const expected = on.step(Tasks.read(on.tasks, id, on.now))
    const times = record && {
      ...record,
      enqueuedAt: on.time(record.enqueuedAt, expected?.enqueuedAt ?? null),
      startedAt: on.time(record.startedAt, expected?.startedAt ?? null),
      finishedAt: on.time(record.finishedAt, expected?.finishedAt ?? null),
      expiresAt: on.time(record.expiresAt, expected?.expiresAt ?? null)
    }
    yield* on.agree(`the record of ${id}`, times, expected && recordOf(expected))
    yield* on.holds(on.journal.saw(id, record))
  }
  if (watch) yield* on.ask(on.backend.unsubscribe(ids))
})

const lookAtLetters = Effect.fnUntraced(function* (on: Player) {
  const { backend, now, tasks } = on
  const expected = Tasks.lettersOf(tasks, undefined, now)
  const listed = yield* on.ask(backend.listDeadLetters({ limit: 1000 }))
  // those of the same moment are in no order
  const byId = new Map(listed.map((letter) => [letter.id, letter]))
  const aligned = expected.map((letter) => inModelTime(on, byId.get(letter.id), letter))
  yield* on.agree("how many dead letters there are", listed.length, expected.length)
  yield* on.agree("the dead letters", aligned, expected.map(letterOf))
  const times = listed.map(({ at }) => at)
  const newestFirst = times.toSorted((one, other) => other - one)
  yield* on.agree("the times of the dead letters, newest first", times, newestFirst)
  const letterIds = listed.map(({ id }) => id)
  const read = yield* on.ask(backend.getDeadLetters(["nobody", ...letterIds]))
  yield* on.agree("the dead letters by their ids", read, [undefined, ...listed])
  const paged: Array<string> = []
  for (let after: string | undefined; ; after = paged.at(-1)) {
    const page = yield* on.ask(backend.listDeadLetters({ limit: 2, after }))
    if (page.length === 0) break
    paged.push(...page.map(({ id }) => id))
  }
  yield* on.agree("the dead letters page by page", paged, letterIds)
  for (const task of [undefined, ...definitions.map(({ name }) => name)]) {
    const count = yield* on.ask(backend.countDeadLetters(task))
    yield* on.agree(`the dead letters of ${task}`, count, Tasks.lettersOf(tasks, task, now).length)
  }
})

/** What waits, and what is claimed: all that can be said where messages are on their way for a while. */
const roughly = (counts: ReadonlyArray<QueueCounts>) =>
  counts.map(({ claimed, delayed, ready }) => ({ claimed, waiting: delayed + ready }))

const lookAtMessages = Effect.fnUntraced(function* (on: Player) {
  const { queues } = on.setting
  const counting = on.broker.counts(queues)
  const expected = queues.map((queue) => Messages.counts(on.messages, queue, on.now))
  if (on.broker.capabilities.lease === "store") {
    return yield* on.agree("the counts", yield* on.ask(counting), expected)
  }
  // what moves meanwhile is rather counted twice than not at all
  const settled = yield* Effect.repeat(Effect.orDie(counting), {
    schedule: Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(40)]),
    until: (found) => isDeepStrictEqual(roughly(found), roughly(expected))
  })
  yield* on.agree("the counts", roughly(settled), roughly(expected))
})

/** Looks at tasks, dead letters and messages. What is overdue is ended by that. */
export const look = (on: Player, watch: boolean): Did =>
  Effect.andThen(
    lookAtTasks(on, watch),
    Effect.all([lookAtLetters(on), lookAtMessages(on)], { concurrency: 2, discard: true })
  )

/** The same after every command, as far as it costs little: in real time only the tasks are looked at so often. */
export const glance = (on: Player): Did => (on.setting.live ? lookAtTasks(on, false) : look(on, false))
