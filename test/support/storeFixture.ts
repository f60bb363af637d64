/** Workers and tasks over any store, as a program has them, and what tests ask of them. */
import { AsyncResult, type Backend, type Broker, Task, Worker } from "chicory"
import { type Context, Deferred, Effect, Layer, Schedule, Schema, type Scope } from "effect"

/** Both services. */
export type Store = Context.Context<Backend.Backend | Broker.Broker>

/** Does what it is told: waits, and gives its number. */
export const Count = Task.make("count", {
  payload: { n: Schema.Number, millis: Schema.Number },
  success: Schema.Number
})

/** A worker for one task, until the scope closes. It puts back at once what it has not finished then. */
export const startWorker = <T extends Task.Any>(
  store: Store,
  task: T,
  handler: Layer.Layer<Task.HandlerOf<T>>,
  options?: Worker.Options
): Effect.Effect<void, never, Scope.Scope> => {
  const worker: Layer.Layer<Worker.Worker, never, Backend.Backend | Broker.Broker> = Layer.provide(
    Worker.layer([task], { drainTimeout: 0, ...options }),
    handler
  )
  return Effect.asVoid(Layer.build(Layer.provide(worker, Layer.succeedContext(store))))
}

/** A handler of `Count` that tells of its runs, and that ends none for as long as `hold` waits. */
export const countingHandler = (hold: (n: number) => Effect.Effect<void> = () => Effect.void) => {
  const begun: Array<number> = []
  const ended: Array<number> = []
  let interrupted = 0
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  const checkWaiters = () => {
    for (const { check, done } of waiting) if (check()) Deferred.doneUnsafe(done, Effect.void)
  }
  const until = (check: () => boolean) =>
    Effect.suspend(() => {
      if (check()) return Effect.void
      const waiter = { check, done: Deferred.makeUnsafe<void>() }
      waiting.add(waiter)
      return Effect.ensuring(
        Deferred.await(waiter.done),
        Effect.sync(() => waiting.delete(waiter))
      )
    })
  return {
    begun,
    ended,
    layer: Count.toLayer(({ millis, n }) =>
      Effect.gen(function* () {
        begun.push(n)
        checkWaiters()
        yield* Effect.sleep(millis)
        yield* hold(n)
        ended.push(n)
        checkWaiters()
        return n
      }).pipe(
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            interrupted++
            checkWaiters()
          })
        )
      )
    ),
    /** Waits until so many runs have begun. */
    untilBegun: (count: number) => until(() => begun.length >= count),
    /** Waits until so many runs have come to their end. */
    untilEnded: (count: number) => until(() => ended.length >= count),
    untilInterrupted: until(() => interrupted > 0)
  }
}

const TICK_MILLIS = 2
/** What a tick counts for at most: as long as the timer of an idle machine takes at its longest. */
const LONGEST_TICK_MILLIS = 3.5

/**
 * How long an effect takes, and what it gives. The milliseconds are those in which the machine had time for this process:
 * they are counted by a timer beside the effect, and a tick that came late counts as one that came in time. On an idle
 * machine they are the clock's; a bound on them holds on a busy one too, which is as slow with the effect as with the timer.
 */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [number, A], E, R> =>
  Effect.suspend(() => {
    let millis = 0
    let last = performance.now()
    const tick = () => {
      const now = performance.now()
      millis += Math.min(now - last, LONGEST_TICK_MILLIS)
      last = now
    }
    const timer = setInterval(tick, TICK_MILLIS)
    return effect.pipe(
      Effect.map((value) => {
        tick()
        return [millis, value] as const
      }),
      Effect.ensuring(Effect.sync(() => clearInterval(timer)))
    )
  })

/** Waits until it holds: where nothing tells. */
export const eventually = <E, R>(check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.asVoid(Effect.repeat(check, { schedule: Schedule.spaced("20 millis"), until: (holds) => holds }))

/** A task runs, and its result is pushed to the one that waits for it. */
export const roundTrip = (n: number) => Effect.flatMap(Count.delay({ n, millis: 0 }), AsyncResult.get)
