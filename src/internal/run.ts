/** One run of a task: the handler with all it is given, from its payload to the verdict on its exit. */
import { Cause, Context, Effect, Exit, type Fiber, Tracer } from "effect"
import type { Started } from "../BackendDriver.ts"
import { TaskContext } from "../TaskContext.ts"
import { PayloadInvalid } from "../TaskFailed.ts"
import type { Known } from "../Worker.ts"
import { nonNegative } from "./allowed.ts"
import { CurrentRun, RetryRequest, type Run as RunOfHandler } from "./currentRun.ts"
import { describe } from "./describe.ts"
import type { Candidate } from "./ledger.ts"
import { fromTraceparent } from "./traceContext.ts"
import { failure, judge, type Stop, timedOut, type Verdict } from "./verdict.ts"

/** A task that runs here. */
export class Run {
  readonly candidate: Candidate
  readonly known: Known
  readonly started: Extract<Started, { readonly _tag: "Run" }>
  /** When the last successful renewal was sent, by this process's monotonic clock. */
  renewedAt: bigint
  /** Why the handler was stopped, if it was. */
  stop: Stop | undefined
  /** The message is still claimed: at-most-once tasks ack theirs before they run. */
  claimed = true
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(candidate: Candidate, known: Known, started: Run["started"], renewedAt: bigint) {
    this.candidate = candidate
    this.known = known
    this.started = started
    this.renewedAt = renewedAt
  }

  get id(): string {
    return this.candidate.start.id
  }

  /** The fiber to stop. */
  ranBy(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.fiber = fiber
    if (this.stop !== undefined) fiber.interruptUnsafe()
  }

  /** Interrupts the handler, its finalizers run. Only the first reason counts, but a lost run stays lost. */
  halt(stop: Stop): void {
    if (this.stop === undefined || stop === "Lost") this.stop = stop
    this.fiber?.interruptUnsafe()
  }
}

const taskContext = ({ candidate, known, started }: Run): TaskContext["Service"] => {
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
    retry: (options) =>
      Effect.suspend(() =>
        Effect.die(
          new RetryRequest({
            countdown:
              options?.countdown === undefined
                ? undefined
                : nonNegative("TaskContext.retry: countdown", options.countdown),
            hasError: options !== undefined && "error" in options,
            error: options?.error
          })
        )
      )
  }
}

/** What the handler's fiber finds in its context. */
const contextOf = (run: Run, ofHandler: RunOfHandler): Context.Context<unknown> =>
  run.known.handler.context.pipe(
    Context.add(TaskContext, taskContext(run)),
    Context.add(CurrentRun, ofHandler)
  )

/** The worker's span is the child of the producer's. Without a tracer that could see it, none is made. */
const traced =
  ({ candidate, known, started }: Run) =>
  (handling: Effect.Effect<unknown, unknown, unknown>): Effect.Effect<unknown, unknown, unknown> =>
    Effect.withFiber((fiber) => {
      const { message } = candidate
      const parent = fromTraceparent(message.traceparent)
      if (fiber.getRef(Tracer.Tracer) === Tracer.nativeTracer) {
        return parent === undefined ? handling : Effect.withParentSpan(handling, parent)
      }
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
    })

/**
 * Runs the handler, in a fiber that is uninterruptible elsewhere: the verdict on its exit is always reached.
 */
export const execute = (run: Run, ofHandler: RunOfHandler, worker: string): Effect.Effect<Verdict> => {
  const { candidate, known } = run
  const { definition, handler } = known
  const { message } = candidate
  const bounded = (handling: Effect.Effect<unknown, unknown, unknown>) =>
    definition.timeout === undefined
      ? handling
      : Effect.timeoutOrElse(handling, { duration: definition.timeout, orElse: () => Effect.fail(timedOut) })
  const attempt = (payload: unknown) =>
    Effect.suspend(() => handler.run(payload)).pipe(Effect.scoped, bounded, traced(run))
  const interruptibly = (effect: Effect.Effect<unknown, unknown, unknown>) =>
    Effect.exit(Effect.interruptible(effect))
  const verdict = Effect.flatMap(interruptibly(definition.payload.decode(message.payload)), (payload) => {
    if (Exit.isSuccess(payload)) {
      return Effect.flatMap(interruptibly(attempt(payload.value)), (exit) => judged(run, exit, worker))
    }
    return Cause.hasInterruptsOnly(payload.cause)
      ? judged(run, payload, worker)
      : failure(new PayloadInvalid({ issue: describe(Cause.squash(payload.cause)) }))
  })
  return Effect.provideContext(verdict, contextOf(run, ofHandler))
}

const judged = ({ known, started, stop }: Run, exit: Exit.Exit<unknown, unknown>, worker: string) =>
  judge({ definition: known.definition, retries: started.retries, stop, worker }, exit)
