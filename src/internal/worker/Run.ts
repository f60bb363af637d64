/** One run of a task: the handler and its context, from the decoding of the payload to the outcome of its exit. */
import { Cause, Context, Effect, Exit, type Fiber, References, type Tracer } from "effect"
import type { Started } from "../../BackendDriver.ts"
import { TaskContext } from "../../TaskContext.ts"
import { PayloadInvalid } from "../../TaskFailed.ts"
import * as metrics from "../metrics.ts"
import { CurrentRun, type RunControl } from "../task/CurrentRun.ts"
import { issueOf } from "../task/TaskCodec.ts"
import type { HandledTask } from "../task/TaskDefinition.ts"
import { type Forks, observed } from "./observeFibers.ts"
import { type ProcessTracing, processTracingOf } from "./processSpan.ts"
import { RunContext } from "./RunContext.ts"
import {
  failureOutcome,
  classifyExit,
  type InterruptReason,
  timedOut,
  type RunOutcome
} from "./runOutcome.ts"
import type { RunSlot } from "./RunSlot.ts"
import type { StartCandidate } from "./RunStore.ts"

/** A task with what all its runs have in common. */
export interface RunnableTask extends HandledTask {
  /** The worker's context, overridden by the context of the handler's layer. */
  readonly context: Context.Context<unknown>
  /** The log annotations of that context; `undefined` where it has none. */
  readonly annotations: Readonly<Record<string, unknown>> | undefined
  /** `undefined`: no tracer is installed, and no span is made. */
  readonly tracing: ProcessTracing | undefined
  readonly metrics: ReturnType<typeof metrics.forTask>
  /** The most bytes of an encoded result, error or progress. */
  readonly maxBytes: number
}

/** Prepares what the runs of a task have in common. */
export const toRunnableTask = (
  { definition, handler }: HandledTask,
  workerContext: Context.Context<never>,
  forks: Forks,
  system: string,
  maxBytes: number
): RunnableTask => {
  const observing = observed(Context.merge(workerContext, handler.context), forks)
  // flat: each run adds services, and the fibers of a run look services up in layer upon layer
  const context = Context.makeUnsafe<unknown>(observing.mapUnsafe)
  const annotations = Context.get(context, References.CurrentLogAnnotations)
  return {
    definition,
    handler,
    context,
    annotations: Object.keys(annotations).length > 0 ? annotations : undefined,
    tracing: processTracingOf(context, system),
    metrics: metrics.forTask(system, definition.name),
    maxBytes
  }
}

/** What log lines, error reports and events say of a run. */
export type RunAnnotations = {
  readonly taskId: string
  readonly taskName: string
  readonly queue: string
  readonly attempt: number
}

/** An open run of this worker. */
export class Run {
  readonly candidate: StartCandidate
  readonly task: RunnableTask
  readonly started: Extract<Started, { readonly _tag: "Run" }>
  readonly annotations: RunAnnotations
  /** When the start was requested, in monotonic nanoseconds. */
  readonly startedAt: bigint
  /** When the handler began, in monotonic nanoseconds. */
  begunAt: bigint
  /** When the last successful renewal was sent, in monotonic nanoseconds. */
  renewedAt: bigint
  /** Why the handler was interrupted. */
  interruptReason: InterruptReason | undefined
  /** Whether the message is still claimed: at-most-once tasks ack it before they run, long runs release it. */
  claimed = true
  /** Whether the outcome is on its way. The store answers `Lost` to a renewal once it has stored the outcome. */
  settling = false
  /** Whether the outcome could not be saved, so that the run is lost. */
  isUnsaved = false
  /** The success that the handler stored itself, in its own transaction. */
  completedOutcome: RunOutcome | undefined
  /** The cause of the handler's exit, if that is a failure. */
  exitCause: Cause.Cause<unknown> | undefined
  /** The slot of the run, once the handler has one. */
  slot: RunSlot | undefined
  /** The span of the run, once it executes, where a tracer is installed. */
  span: Tracer.Span | undefined
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(candidate: StartCandidate, task: RunnableTask, started: Run["started"], startedAt: bigint) {
    this.candidate = candidate
    this.task = task
    this.started = started
    const { id, queue, task: taskName } = candidate.message
    this.annotations = { taskId: id, taskName, queue, attempt: started.attempt }
    this.startedAt = startedAt
    this.begunAt = startedAt
    this.renewedAt = startedAt
  }

  get id(): string {
    return this.candidate.start.id
  }

  /** Sets the fiber of the handler, which is interrupted at once if the run is. */
  attachFiber(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.fiber = fiber
    if (this.interruptReason !== undefined) fiber.interruptUnsafe()
  }

  /** Interrupts the handler, whose finalizers run. The first reason is kept, but `Lost` overrides any other. */
  interrupt(reason: InterruptReason): void {
    if (this.interruptReason === undefined || reason === "Lost") this.interruptReason = reason
    this.fiber?.interruptUnsafe()
  }
}

/** Returns the context of the run's fiber, which is the handler's as well unless the task has a timeout. */
export const runContext = (run: Run, control: RunControl): Context.Context<unknown> => {
  const { annotations, context, definition } = run.task
  const withTask = Context.add(
    Context.add(context, TaskContext, new RunContext(run.id, definition, run.started, context)),
    References.CurrentLogAnnotations,
    annotations === undefined ? run.annotations : { ...annotations, ...run.annotations }
  )
  return definition.timeout === undefined ? Context.add(withTask, CurrentRun, control) : withTask
}

/**
 * Runs the handler and returns the outcome of its exit. It expects a fiber that is uninterruptible outside of the
 * handler and has the run's context, so that every exit leads to an outcome.
 */
export const execute = (
  run: Run,
  control: RunControl,
  worker: string
): Effect.Effect<RunOutcome, never, unknown> =>
  Effect.flatMapEager(
    interruptibly(run.task.definition.payload.decode(run.candidate.message.payload)),
    (payload) => {
      if (Exit.isSuccess(payload)) {
        return Effect.flatMap(interruptibly(attempt(run, control, payload.value)), (exit) =>
          outcomeOfExit(run, exit, worker)
        )
      }
      return Cause.hasInterruptsOnly(payload.cause)
        ? outcomeOfExit(run, payload, worker)
        : failureOutcome(new PayloadInvalid(issueOf(Cause.squash(payload.cause))))
    }
  )

const interruptibly = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.exit(Exit.isExit(effect) ? effect : Effect.interruptible(effect))

const attempt = (
  run: Run,
  control: RunControl,
  payload: unknown
): Effect.Effect<unknown, unknown, unknown> => {
  const { definition, handler } = run.task
  const handling = Effect.scoped(Effect.suspend(() => handler.run(payload)))
  return definition.timeout === undefined
    ? handling
    : Effect.timeoutOrElse(inOwnFiber(handling, control), {
        duration: definition.timeout,
        orElse: () => Effect.fail(timedOut)
      })
}

/** Runs the handler in a fiber that was not made in the context of the run, so that the timer beside it is not either. */
const inOwnFiber = <A, E, R>(handling: Effect.Effect<A, E, R>, control: RunControl): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    control.onFiberStart(undefined)
    return Effect.provideService(handling, CurrentRun, control)
  })

/** Returns the outcome of a value that the handler completes with before it has ended. */
export const outcomeOfValue = (run: Run, value: unknown, worker: string): Effect.Effect<RunOutcome> =>
  Effect.provideContext(outcomeOfExit(run, Exit.succeed(value), worker), run.task.context)

/** Returns the outcome of an exit of the handler. Requires the services that encode the task's result. */
export const outcomeOfExit = (
  run: Run,
  exit: Exit.Exit<unknown, unknown>,
  worker: string
): Effect.Effect<RunOutcome, never, unknown> => {
  const { begunAt, interruptReason, started, task } = run
  if (Exit.isFailure(exit)) run.exitCause = exit.cause
  return classifyExit(
    {
      definition: task.definition,
      maxBytes: task.maxBytes,
      retries: started.retries,
      attempt: started.attempt,
      begunAt,
      interruptReason,
      worker
    },
    exit
  )
}
