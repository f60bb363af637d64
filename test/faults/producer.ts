/** A producer in this process: retries an enqueue until it is accepted, and waits for every task. */
import { AsyncResult, type Backend, type Broker, type Task } from "chicory"
import { type Context, type Duration, Effect, Exit, Schedule, type Scope } from "effect"
import { eventually } from "../support/storeFixture.ts"
import { Job, type Outcome, type Payload } from "./job.ts"

/** An accepted task and the state of its waiter. */
export interface Enqueued {
  readonly id: string
  readonly payload: Payload
  /** When it was accepted, in milliseconds. */
  readonly acceptedAt: number
  /** When its waiter received an outcome or an error. */
  resolvedAt: number | undefined
  outcome: Outcome | undefined
  error: string | undefined
}

/** A producer and its tasks so far. */
export interface Producer {
  readonly tasks: ReadonlyArray<Enqueued>
  /** How many calls failed with a retryable error, so that their effect is unknown. */
  readonly unknown: () => number
  /** Enqueues a task, under the same id until it is accepted, and starts a waiter. */
  readonly enqueue: (payload: Payload, options?: Task.EnqueueOptions) => Effect.Effect<Enqueued>
  /** Enqueues several tasks concurrently. */
  readonly enqueueAll: (payloads: ReadonlyArray<Payload>) => Effect.Effect<ReadonlyArray<Enqueued>>
  /** Starts a waiter for a task of another producer. */
  readonly waitFor: (id: string, payload: Payload) => Effect.Effect<Enqueued>
}

/** Makes a producer over these services; its waiters end with the scope. */
export const makeProducer = (
  services: Context.Context<Backend.Backend | Broker.Broker>,
  waiting: AsyncResult.GetOptions = {}
): Effect.Effect<Producer, never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => {
    const tasks: Array<Enqueued> = []
    let unknown = 0
    const begin = (id: string, payload: Payload): Effect.Effect<Enqueued> =>
      Effect.suspend(() => {
        const task: Enqueued = {
          id,
          payload,
          acceptedAt: performance.now(),
          resolvedAt: undefined,
          outcome: undefined,
          error: undefined
        }
        tasks.push(task)
        return AsyncResult.exit(Job.result(id), waiting).pipe(
          Effect.exit,
          Effect.map((exit) => {
            task.resolvedAt = performance.now()
            if (Exit.isSuccess(exit)) task.outcome = exit.value
            else task.error = String(exit.cause)
          }),
          Effect.provideContext(services),
          Effect.forkIn(scope),
          Effect.as(task)
        )
      })
    const enqueue = (payload: Payload, options?: Task.EnqueueOptions): Effect.Effect<Enqueued> => {
      const id = options?.id ?? `job ${payload.n}`
      return Job.delay(payload, { ...options, id }).pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if ("retryable" in error && error.retryable) unknown++
          })
        ),
        Effect.retry({
          schedule: Schedule.spaced("50 millis"),
          while: (error) => "retryable" in error && error.retryable
        }),
        Effect.orDie,
        Effect.andThen(begin(id, payload)),
        Effect.provideContext(services)
      )
    }
    return {
      tasks,
      unknown: () => unknown,
      enqueue,
      enqueueAll: (payloads) => Effect.forEach(payloads, (payload) => enqueue(payload), { concurrency: 8 }),
      waitFor: begin
    }
  })

/**
 * Waits until the waiters of these tasks are resolved, as long as one of them is resolved within that time. Returns
 * the ids of the others.
 */
export const unresolved = (
  tasks: () => ReadonlyArray<Enqueued>,
  within: Duration.Input
): Effect.Effect<ReadonlyArray<string>> => {
  const left = () => tasks().filter(({ resolvedAt }) => resolvedAt === undefined)
  const nextIsTold = Effect.suspend(() => {
    const before = left().length
    if (before === 0) return Effect.succeed(false)
    return Effect.isSuccess(Effect.timeout(eventually(Effect.sync(() => left().length < before)), within))
  })
  return Effect.map(Effect.repeat(nextIsTold, { while: (goesOn) => goesOn }), () =>
    left().map(({ id }) => id)
  )
}
