/** The model of runs: how they start, renew their lease and end. */
import type {
  EndedByStart,
  Outcome,
  Renew,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started
} from "../../src/BackendDriver.ts"
import {
  initial,
  writeDeadLetter,
  end,
  endOverdue,
  find,
  isFinal,
  isOverdue,
  isStopped,
  endAsLost,
  overdueEnd,
  put,
  type Step,
  type Task,
  type Tasks
} from "./tasks.ts"

const DROP: Started = { _tag: "Drop" }

/** The answer to the start that ended a task. */
const dropped = ({ attempt, crashes, worker }: Task, reason: EndedByStart["reason"]): Started => ({
  _tag: "Drop",
  ended: { reason, attempt, crashes, worker }
})

const running = (task: Task, request: Start, now: number): Task => ({
  ...task,
  state: "STARTED",
  attempt: task.attempt + 1,
  fence: task.fence + 1,
  worker: request.worker,
  startedAt: task.startedAt ?? now,
  dueAt: null,
  reservedUntil: undefined,
  retention: request.retentionMillis,
  settled: undefined,
  run: { token: request.token, request, leaseUntil: now + request.leaseMillis }
})

const run = (all: Tasks, task: Task, lostWorker?: string | null): Step<Started> => {
  const { attempt, crashes, fence, retries } = task
  const lost = typeof lostWorker === "string" ? { lostWorker } : {}
  return [{ _tag: "Run", fence, attempt, retries, crashes, ...lost }, put(all, task)]
}

/** Starts a message's task. Only the record says whether it may run: without one, nothing does. */
export const start = (all: Tasks, request: Start, now: number): Step<Started> => {
  const task = find(all, request.id, now)
  if (task === undefined) return [{ _tag: "NoRecord" }, all]
  if (task.run !== undefined && task.run.token === request.token) {
    return run(all, { ...task, run: { ...task.run, leaseUntil: now + request.leaseMillis } })
  }
  const isOfRecord = request.task === task.task && request.incarnation === task.incarnation
  if (isFinal(task) || !isOfRecord || request.generation < task.generation) return [DROP, all]
  if (isOverdue(task, now)) return [dropped(task, overdueEnd(task, now)), endOverdue(all, task, now)]
  const until = task.run?.leaseUntil ?? (task.state === "RETRY" ? (task.dueAt ?? 0) : 0)
  if (until > now) return [{ _tag: "Busy", millis: until - now }, all]
  if (task.run === undefined)
    return run(all, running(ofGeneration(task, request.generation, now), request, now))
  const crashed = { ...task, crashes: task.crashes + 1 }
  if (crashed.crashes >= request.maxCrashes) {
    return [dropped(crashed, "WorkerLost"), endAsLost(all, crashed, task.run, now, request)]
  }
  const opened = ofGeneration(crashed, request.generation, now)
  // a new generation begins without crashes
  return run(all, running(opened, request, now), opened === crashed ? task.worker : undefined)
}

/** Opens a later generation of a task. */
const ofGeneration = (task: Task, generation: number, now: number): Task =>
  generation === task.generation ? task : { ...task, ...initial, generation, enqueuedAt: now }

/** Renews the lease of a run. */
export const renew = (
  all: Tasks,
  { id, leaseMillis, progress, token }: Renew,
  now: number
): Step<Renewed> => {
  const task = find(all, id, now)
  if (task?.run === undefined || task.run.token !== token) return ["Lost", all]
  const held = {
    ...task,
    progress: progress ?? task.progress,
    run: { ...task.run, leaseUntil: now + leaseMillis }
  }
  return [task.cancelRequested ? "CancelRequested" : "Held", put(all, held)]
}

const goesBack = ({ _tag }: Outcome): boolean => _tag === "Retry" || _tag === "Release"

/** Compares outcomes by tag and exit: no run has retries with different delays. */
const isSame = (one: Outcome, other: Outcome): boolean =>
  one._tag === other._tag && ("exit" in one ? one.exit : "") === ("exit" in other ? other.exit : "")

/** Settles a run; returns the answers that a store may give. */
export const settle = (all: Tasks, settlement: Settlement, now: number): Step<ReadonlyArray<Settled>> => {
  const { id, outcome, token } = settlement
  const task = find(all, id, now)
  if (task === undefined) return [["Lost"], all]
  if (task.run === undefined || task.run.token !== token) {
    const { settled } = task
    if (settled?.settlement.token !== token) return [["Lost"], all]
    const repeated =
      settled.answer === "Cancelled" ? goesBack(outcome) : isSame(settled.settlement.outcome, outcome)
    if (!repeated) return [["Lost"], all]
    return [settled.outdated ? [settled.answer, "Lost"] : [settled.answer], all]
  }
  const stopped = isStopped(task) && goesBack(outcome)
  const answer: Settled = stopped ? "Cancelled" : "Stored"
  const closed = { run: undefined, settled: { settlement, answer, outdated: false } }
  if (stopped) return [[answer], end(all, task, now, { state: "FAILURE", ended: "Cancelled", ...closed })]
  switch (outcome._tag) {
    case "Success": {
      const how = { state: "SUCCESS", exit: outcome.exit, retention: outcome.retentionMillis } as const
      return [[answer], end(all, task, now, { ...how, ...closed })]
    }
    case "Failure": {
      const { deadLetter, exit } = outcome
      const ended = { ...task, retention: outcome.retentionMillis }
      const buried =
        deadLetter === undefined
          ? all
          : writeDeadLetter(all, ended, now, { ...deadLetter, exit }, deadLetter.retentionMillis)
      const how = { state: "FAILURE", exit, retention: outcome.retentionMillis } as const
      return [[answer], end(buried, task, now, { ...how, ...closed })]
    }
    case "Retry": {
      const dueAt = now + outcome.afterMillis
      const history = `${task.history}${outcome.failure ?? ""}`.slice(-16_384)
      const retried = {
        ...task,
        state: "RETRY",
        retries: task.retries + 1,
        dueAt,
        history,
        ...closed
      } as const
      return [[answer], put(all, retried)]
    }
    case "Release": {
      const state = task.retries > 0 ? "RETRY" : "PENDING"
      return [[answer], put(all, { ...task, state, attempt: task.attempt - 1, dueAt: null, ...closed })]
    }
  }
}
