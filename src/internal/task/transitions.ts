/**
 * The state machine of a task: when a run may start, what a settlement does, what the passing of time does, how a task is
 * cancelled, forgotten and reopened.
 *
 * Every function is pure: it takes the facts of a record at one moment and returns a decision, and the store carries it
 * out in the same atomic step. The memory and SQL stores call these functions; where SQL text or Lua decides by
 * itself, a comment names the rule. `docs/state-machine.md` shows the rules as a diagram and a table. The model in the
 * tests is an independent oracle and shares no code with this module.
 */
import { isTerminal, type TaskState } from "../../TaskState.ts"

/** The facts of a record that decisions depend on. Times are epoch milliseconds of the store's clock. */
export interface TaskFacts {
  /** The task's name. */
  readonly task: string
  readonly state: TaskState
  /** Tells the enqueues of one id apart. Empty where the id was made for this enqueue alone. */
  readonly incarnation: string
  readonly generation: number
  readonly crashes: number
  /** The token of the last run. It stays after the run's settlement, and is `null` after L1–L3, S8, S9, C3 and C4. */
  readonly token: string | null
  /** When the lease of the open run ends; `null` where no run is open. */
  readonly leaseUntil: number | null
  /** The open run is of an at-most-once task. */
  readonly atMostOnce: boolean
  readonly cancelRequested: boolean
  /** The message of the open run was removed from its queue: no other message can start the task again. */
  readonly withdrawn: boolean
  /** When a waiting task expires; `null`: never. */
  readonly expiresAt: number | null
  /**
   * When a retry is due; `null` unless the last settlement was a retry. A task that was never started has the time here at
   * which the delay of its enqueue ends, which decides nothing.
   */
  readonly dueAt: number | null
  /** Why the store ended the task; `Forgotten` is set before the end. */
  readonly ended: "Expired" | "WorkerLost" | "Cancelled" | "Forgotten" | null
}

/** An end that time or a request brings, without the exit of a run. */
export type ForcedEnd = "Expired" | "WorkerLost" | "Cancelled"

/** Whether a task waits for a run. */
export const isWaiting = ({ state }: Pick<TaskFacts, "state">): boolean =>
  state === "PENDING" || state === "RETRY"

const isLeased = ({ leaseUntil }: TaskFacts, now: number): boolean => leaseUntil !== null && leaseUntil > now

/** Whether a task ends when its open run does not end it: it was asked to stop, or has no message to go on with. */
export const endsWithRun = ({
  cancelRequested,
  withdrawn
}: Pick<TaskFacts, "cancelRequested" | "withdrawn">): boolean => cancelRequested || withdrawn

/**
 * Returns how a task ends by the passing of time alone; `undefined` if it does not.
 *
 * - **L1** A waiting task whose expiry is reached ends as `Expired`.
 * - **L2** A run whose lease is over ends as `Cancelled` if a cancel was requested or its message was withdrawn.
 * - **L3** An at-most-once run whose lease is over ends as `WorkerLost` otherwise.
 */
export const lapse = (task: TaskFacts, now: number): ForcedEnd | undefined => {
  if (isWaiting(task)) return task.expiresAt !== null && task.expiresAt <= now ? "Expired" : undefined
  if (task.state !== "STARTED" || isLeased(task, now)) return undefined
  if (endsWithRun(task)) return "Cancelled"
  return task.atMostOnce ? "WorkerLost" : undefined
}

/** What a start request says, as far as the decision depends on it. */
export interface StartRequest {
  readonly task: string
  readonly token: string
  readonly incarnation: string
  readonly generation: number
  readonly maxCrashes: number
}

/** The decision on a start request. */
export type StartDecision =
  | { readonly _tag: "NoRecord" }
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Busy"; readonly millis: number }
  /** The request repeats that of the open run: renew the lease and return the same run. */
  | { readonly _tag: "Repeat" }
  /** End the task, then drop the message. */
  | { readonly _tag: "End"; readonly ended: ForcedEnd; readonly crashes: number }
  /** Open the given generation first, if any, then run. */
  | { readonly _tag: "Run"; readonly opens: number | undefined; readonly crashes: number }

/**
 * Decides whether a delivered message may run. `undefined`: there is no record.
 *
 * - **S0** There is no record: the task was forgotten, or its retention is over.
 * - **S1** The open run has the token of the request: the request is repeated.
 * - **S2** The task has ended: drop.
 * - **S3** The message is of another task or incarnation than the record, or of an older generation: drop.
 * - **S4** The task waits and has expired (L1): end it, drop.
 * - **S5** The task waits for a retry that is not due: busy for the remainder.
 * - **S6** The task runs under a live lease: busy for the remainder.
 * - **S7** The lease of an at-most-once run is over: end the task (L2, L3), drop.
 * - **S8** The lease is over, and a cancel was requested or the message was withdrawn: end the task as `Cancelled` (L2),
 *   drop.
 * - **S9** The lease is over and the crashes reach the limit: end the task as `WorkerLost`, drop.
 * - **S10** Otherwise run. A run over a lapsed lease counts a crash; a message of a newer generation opens that
 *   generation first, with nothing counted.
 */
export const decideStart = (
  task: TaskFacts | undefined,
  request: StartRequest,
  now: number
): StartDecision => {
  if (task === undefined) return { _tag: "NoRecord" }
  if (task.state === "STARTED" && task.token === request.token) return { _tag: "Repeat" }
  if (isTerminal(task.state) || !isOfRecord(task, request) || request.generation < task.generation) {
    return { _tag: "Drop" }
  }
  const opens = request.generation > task.generation ? request.generation : undefined
  const ended = lapse(task, now)
  if (ended !== undefined) return { _tag: "End", ended, crashes: task.crashes }
  const busyUntil = task.state === "STARTED" ? task.leaseUntil : task.state === "RETRY" ? task.dueAt : null
  if (busyUntil !== null && busyUntil > now) return { _tag: "Busy", millis: busyUntil - now }
  const crashes = isWaiting(task) ? task.crashes : task.crashes + 1
  if (!isWaiting(task) && crashes >= request.maxCrashes) return { _tag: "End", ended: "WorkerLost", crashes }
  return { _tag: "Run", opens, crashes: opens === undefined ? crashes : 0 }
}

const isOfRecord = (task: TaskFacts, request: StartRequest): boolean =>
  task.task === request.task && task.incarnation === request.incarnation

/** How a run ended, as far as the decision depends on it. */
export type OutcomeTag = "Success" | "Failure" | "Retry" | "Release"

/** The decision on a settlement. */
export type SettleDecision =
  /** The run is open: write the outcome. */
  | "Write"
  /** The run is open and a cancel was requested: end the task as cancelled. */
  | "Cancel"
  /** The settlement repeats a final one if the stored exit is the same: then `Stored`, otherwise `Lost`. */
  | "CompareExit"
  /** The settlement repeats one that is stored. */
  | "Stored"
  /** The settlement repeats one that ended as cancelled. */
  | "Cancelled"
  /** The run was superseded: write nothing. */
  | "Lost"

/**
 * Decides what the settlement of a run does. `undefined`: there is no record.
 *
 * - **T1** There is no record, or its last run has another token: `Lost`.
 * - **T2** A retry or a release of the open run, where a cancel was requested or its message was withdrawn: the task ends
 *   as cancelled.
 * - **T3** Any other outcome of the open run is written. A retry waits in `RETRY` until it is due and counts, and its
 *   failure is appended to the history of the generation; a release returns to `PENDING` or `RETRY`, due at once, its
 *   attempt uncounted; a success or a failure is final.
 * - **T4** A final outcome, where the task ended with the same state: a repetition if the exit is the same.
 * - **T5** A retry or a release, where the task ended as cancelled: a repetition of T2.
 * - **T6** A retry where the task waits for one, or a release where it waits for none: a repetition of T3.
 * - **T7** Anything else: `Lost`.
 *
 * A forgotten task is removed by its final settlement instead of being kept (F3).
 */
export const decideSettle = (
  task: TaskFacts | undefined,
  token: string,
  outcome: OutcomeTag
): SettleDecision => {
  if (task === undefined || task.token !== token) return "Lost"
  const goesBack = outcome === "Retry" || outcome === "Release"
  switch (task.state) {
    case "STARTED":
      return goesBack && endsWithRun(task) ? "Cancel" : "Write"
    case "SUCCESS":
      return outcome === "Success" ? "CompareExit" : "Lost"
    case "FAILURE":
      if (task.ended === "Cancelled") return goesBack ? "Cancelled" : "Lost"
      return outcome === "Failure" ? "CompareExit" : "Lost"
    case "PENDING":
    case "RETRY":
      return outcome === (task.dueAt === null ? "Release" : "Retry") ? "Stored" : "Lost"
  }
}

/** Returns the state to which a retried or released run goes back, by the retries that are counted then. */
export const stateAfterRetries = (retries: number): "PENDING" | "RETRY" => (retries > 0 ? "RETRY" : "PENDING")

/** The decision on a cancel request. */
export type CancelDecision = "AlreadyDone" | "Request" | ForcedEnd

/**
 * Decides what a cancel does to a known task.
 *
 * - **C1** The task has ended: `AlreadyDone`.
 * - **C2** The task runs, even over a lapsed lease: the request is stored.
 * - **C3** The task waits and has expired (L1): end it as `Expired`; the answer is `AlreadyDone`.
 * - **C4** The task waits: end it as `Cancelled`.
 */
export const decideCancel = (task: TaskFacts, now: number): CancelDecision => {
  if (isTerminal(task.state)) return "AlreadyDone"
  if (task.state === "STARTED") return "Request"
  return lapse(task, now) ?? "Cancelled"
}

/** A message that was removed from its queue before a worker had claimed it. */
export interface WithdrawnMessage {
  readonly incarnation: string
  readonly generation: number
}

/** The decision on a withdrawn message. */
export type WithdrawDecision = "Nothing" | "Mark" | ForcedEnd

/**
 * Decides what becomes of the task of a message that was withdrawn. `undefined`: there is no record.
 *
 * - **W1** There is no record, the task has ended, or the message is of another incarnation or generation: nothing.
 * - **W2** The task runs: mark it, so that it ends when its run does not end it (L2, S8, T2).
 * - **W3** The task waits: end it as `Cancelled`, or as `Expired` if it has expired (L1).
 */
export const decideWithdraw = (
  task: TaskFacts | undefined,
  message: WithdrawnMessage,
  now: number
): WithdrawDecision => {
  if (task === undefined || isTerminal(task.state)) return "Nothing"
  if (message.incarnation !== task.incarnation || message.generation !== task.generation) return "Nothing"
  return task.state === "STARTED" ? "Mark" : (lapse(task, now) ?? "Cancelled")
}

/**
 * Decides what forgetting does to a known task.
 *
 * - **F1** The task has ended: remove the record.
 * - **F2** Otherwise free its key and mark it as `Forgotten`; it runs on.
 * - **F3** The end of a forgotten task removes its record.
 */
export const decideForget = ({ state }: Pick<TaskFacts, "state">): "Remove" | "Mark" =>
  isTerminal(state) ? "Remove" : "Mark"

/** What a replay reads of a dead letter. */
export interface ReopenRequest {
  readonly incarnation: string
  readonly generation: number
}

/**
 * Decides what the replay of a dead letter does to its task. `undefined`: there is no record.
 *
 * - **R1** There is no record: create one, waiting, in the letter's incarnation and its generation + 1, with the letter's
 *   fence and queue.
 * - **R2** The task has ended and is not of a later generation: open the letter's generation + 1, with nothing counted, no
 *   expiry and no history.
 * - **R3** Otherwise leave the record alone: the replay was done before.
 * - **R4** The record is of another incarnation, so that another task has the id now: refuse.
 * - **R5** The task waits in the letter's generation + 1: if it is still a reservation, it is renewed, and stays for at
 *   least as long as this replay asks.
 *
 * R1 and R2 open a reservation, whose message is not known to be sent.
 */
export const decideReopen = (
  task: Pick<TaskFacts, "state" | "incarnation" | "generation"> | undefined,
  letter: ReopenRequest
): "Create" | "Open" | "Leave" | "Refuse" | "Renew" => {
  if (task === undefined) return "Create"
  if (task.incarnation !== letter.incarnation) return "Refuse"
  if (isTerminal(task.state)) return task.generation <= letter.generation ? "Open" : "Leave"
  return isWaiting(task) && task.generation === letter.generation + 1 ? "Renew" : "Leave"
}

/** What `create` compares where the id or the key is taken. */
export interface CreateFacts {
  readonly task: string
  /** Empty where it is not known. */
  readonly payloadHash: string
}

/**
 * Decides whether a new record is the one that holds its id or its key already.
 *
 * - **E1** Another task's name, another known payload, or a forgotten task that has not ended: not the same.
 * - **E2** The same task and payload, or a payload that either side does not know: the same.
 * - **E3** A record that a replay created knows neither payload nor key, and adopts those of the first request that is
 *   the same.
 * - **E4** A reservation is renewed by a request that is the same and that is a reservation too: it stays for at least as
 *   long as that asks.
 */
export const decideCreate = (
  existing: CreateFacts & Pick<TaskFacts, "ended">,
  request: CreateFacts
): { readonly same: boolean; readonly adopts: boolean } => {
  const unknown = existing.payloadHash === ""
  const same =
    existing.task === request.task &&
    existing.ended !== "Forgotten" &&
    (unknown || request.payloadHash === "" || existing.payloadHash === request.payloadHash)
  return { same, adopts: same && unknown }
}

/**
 * Decides the answer to a renewal. `undefined`: there is no record.
 *
 * - **N1** No record, no open run, or another token: `Lost`.
 * - **N2** The run is open, even over a lapsed lease: renew the lease; the answer reports a cancel request.
 *
 * A store that locks records does not wait for one that something else holds: it answers `Unknown` (N3). A store that is full
 * renews the lease without the progress: it answers `ProgressRefused` (N4).
 */
export const decideRenew = (
  task: Pick<TaskFacts, "state" | "token" | "cancelRequested"> | undefined,
  token: string
): "Held" | "CancelRequested" | "Lost" => {
  if (task?.state !== "STARTED" || task.token !== token) return "Lost"
  return task.cancelRequested ? "CancelRequested" : "Held"
}
