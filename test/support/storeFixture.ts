/** Workers and tasks over any store, and what tests check on them. */
import { AsyncResult, type Backend, type Broker, Task, Worker } from "chicory"
import { type Context, Deferred, Effect, Layer, Schedule, Schema, type Scope } from "effect"

/** Both services. */
export type Store = Context.Context<Backend.Backend | Broker.Broker>

/** Waits for `millis` and returns its number. */
export const Count = Task.make("count", {
  payload: { n: Schema.Number, millis: Schema.Number },
  success: Schema.Number
})

/** Starts a worker for one task, which stops with the scope and releases unfinished tasks at once. */
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

/** Makes a handler of `Count` that records its runs; a run ends after `hold`. */
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
    /** Waits until that many runs have begun. */
    untilBegun: (count: number) => until(() => begun.length >= count),
    /** Waits until that many runs have ended. */
    untilEnded: (count: number) => until(() => ended.length >= count),
    untilInterrupted: until(() => interrupted > 0)
  }
}

const TICK_MILLIS = 2
/** Upper bound of a tick's length: the longest that a timer takes on an idle machine. */
const LONGEST_TICK_MILLIS = 3.5

/**
 * Returns how long an effect takes, and its value. The milliseconds are those in which the machine had time for this
 * process: a timer beside the effect counts them, and a late tick counts as one in time. On an idle machine they are
 * the clock's; a bound on them holds on a busy machine too, which delays the effect as much as the timer.
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

/** Waits for an effect. A test that would wait for ever fails by what it waits for, instead of by the length of all it does. */
export const within30Seconds = <A, E, R>(
  what: () => string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(effect, {
    duration: "30 seconds",
    orElse: () => Effect.die(new Error(`30 s were too short for ${what()}`))
  })

/** Polls until the check holds. */
export const eventually = <E, R>(check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.asVoid(Effect.repeat(check, { schedule: Schedule.spaced("20 millis"), until: (holds) => holds }))

/** Enqueues a task and waits for its result. */
export const roundTrip = (n: number) => Effect.flatMap(Count.delay({ n, millis: 0 }), AsyncResult.get)
