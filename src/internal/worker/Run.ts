/** One run of a task: the handler with all it is given, from its payload to the outcome on its exit. */
import { Cause, Context, Effect, Exit, type Fiber, Tracer } from "effect"
import type { Started } from "../../BackendDriver.ts"
import { TaskContext } from "../../TaskContext.ts"
import { PayloadInvalid } from "../../TaskFailed.ts"
import { formatError } from "../formatError.ts"
import * as metrics from "../metrics.ts"
import { nonNegativeDuration } from "../options.ts"
import { CurrentRun, RetryRequest, type RunControl as RunOfHandler } from "../task/CurrentRun.ts"
import type { HandledTask } from "../task/TaskDefinition.ts"
import { fromTraceparent } from "../task/traceContext.ts"
import {
  failureOutcome,
  classifyExit,
  type InterruptReason,
  timedOut,
  type RunOutcome
} from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"

/** A task as a worker runs it: what all its runs have in common. */
export interface RunnableTask extends HandledTask {
  /** The worker's context, and over it what the handler was given. */
  readonly context: Context.Context<unknown>
  /** Whether there is a tracer that could see a span. */
  readonly traced: boolean
  readonly metrics: ReturnType<typeof metrics.forTask>
}

/** Finds out what the runs of a task have in common. */
export const toRunnableTask = (
  { definition, handler }: HandledTask,
  ofWorker: Context.Context<never>
): RunnableTask => {
  const context = Context.merge(ofWorker, handler.context)
  return {
    definition,
    handler,
    context,
    traced: Context.get(context, Tracer.Tracer) !== Tracer.nativeTracer,
    metrics: metrics.forTask(definition.name)
  }
}

/** A task that runs here. */
export class Run {
  readonly candidate: StartCandidate
  readonly task: RunnableTask
  readonly started: Extract<Started, { readonly _tag: "Run" }>
  /** When it was asked for, by this process's monotonic clock. */
  readonly startedAt: bigint
  /** When the last successful renewal was sent, by the same. */
  renewedAt: bigint
  /** Why the handler was stopped, if it was. */
  interruptReason: InterruptReason | undefined
  /** The message is still claimed: at-most-once tasks ack theirs before they run, and long ones let go of theirs. */
  claimed = true
  /** Its outcome is on its way. From then on the store may call a renewal lost because it has stored that outcome. */
  settling = false
  /** Its success, stored by the handler itself, in a transaction of its own. */
  completedOutcome: RunOutcome | undefined
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(candidate: StartCandidate, known: RunnableTask, started: Run["started"], startedAt: bigint) {
    this.candidate = candidate
    this.task = known
    this.started = started
    this.startedAt = startedAt
    this.renewedAt = startedAt
  }

  get id(): string {
    return this.candidate.start.id
  }

  /** The fiber to stop. */
  attachFiber(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.fiber = fiber
    if (this.interruptReason !== undefined) fiber.interruptUnsafe()
  }

  /** Interrupts the handler, its finalizers run. Only the first reason counts, but a lost run stays lost. */
  interrupt(stop: InterruptReason): void {
    if (this.interruptReason === undefined || stop === "Lost") this.interruptReason = stop
    this.fiber?.interruptUnsafe()
  }
}

const taskContext = ({ candidate, task: known, started }: Run): TaskContext["Service"] => {
  const { maxRetries } = known.definition.retry
  const { attempt, fence, retries } = started
  return {
    taskId: candidate.start.id,
    taskName: known.definition.name,
    attempt,
    retries,
    maxRetries,
    isLastRetry: retries === maxRetries,
    remainingRetries: Math.max(0, maxRetries - retries),
    fence,
    retry
  }
}

const retry: TaskContext["Service"]["retry"] = (options) =>
  Effect.suspend(() =>
    Effect.die(
      new RetryRequest({
        countdown:
          options?.countdown === undefined
            ? undefined
            : nonNegativeDuration("TaskContext.retry: countdown", options.countdown),
        hasError: options !== undefined && "error" in options,
        error: options?.error
      })
    )
  )

/** What the handler's fiber finds in its context. */
export const handlerContext = (run: Run, ofHandler: RunOfHandler): Context.Context<unknown> =>
  Context.add(Context.add(run.task.context, TaskContext, taskContext(run)), CurrentRun, ofHandler)

/** The worker's span is the child of the producer's. Without a tracer that could see it, none is made. */
const inSpan = (
  { candidate, task: known, started }: Run,
  handling: Effect.Effect<unknown, unknown, unknown>
): Effect.Effect<unknown, unknown, unknown> => {
  const { message } = candidate
  const parent = fromTraceparent(message.traceparent)
  if (!known.traced) return parent === undefined ? handling : Effect.withParentSpan(handling, parent)
  return handling.pipe(
    Effect.withSpan(
      known.definition.name,
      {
        kind: "consumer",
        ...(parent === undefined ? { root: true } : { parent }),
        attributes: {
          "messaging.operation.name": "process",
          "messaging.destination.name": message.queue,
          "messaging.message.id": message.id,
          "chicory.task.attempt": started.attempt
        }
      },
      { captureStackTrace: false }
    )
  )
}

/**
 * Runs the handler, in a fiber that is uninterruptible elsewhere and has the run's context: the outcome on its exit
 * is always reached.
 */
export const execute = (run: Run, worker: string): Effect.Effect<RunOutcome, never, unknown> =>
  Effect.flatMapEager(
    interruptibly(run.task.definition.payload.decode(run.candidate.message.payload)),
    (payload) => {
      if (Exit.isSuccess(payload)) {
        return Effect.flatMap(interruptibly(attempt(run, payload.value)), (exit) => judged(run, exit, worker))
      }
      return Cause.hasInterruptsOnly(payload.cause)
        ? judged(run, payload, worker)
        : failureOutcome(new PayloadInvalid({ issue: formatError(Cause.squash(payload.cause)) }))
    }
  )

const interruptibly = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.exit(Exit.isExit(effect) ? effect : Effect.interruptible(effect))

const attempt = (run: Run, payload: unknown): Effect.Effect<unknown, unknown, unknown> => {
  const { definition, handler } = run.task
  const handling = Effect.scoped(Effect.suspend(() => handler.run(payload)))
  return inSpan(
    run,
    definition.timeout === undefined
      ? handling
      : Effect.timeoutOrElse(handling, { duration: definition.timeout, orElse: () => Effect.fail(timedOut) })
  )
}

/** The outcome on a value that the handler gives before it has ended. */
export const outcomeOfValue = (run: Run, value: unknown, worker: string): Effect.Effect<RunOutcome> =>
  Effect.provideContext(judged(run, Exit.succeed(value), worker), run.task.context)

const judged = (
  { task: known, started, interruptReason: stop }: Run,
  exit: Exit.Exit<unknown, unknown>,
  worker: string
) => classifyExit({ definition: known.definition, retries: started.retries, stop, worker }, exit)
