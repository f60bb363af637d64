/** Stores, workers and tasks over one server, as a program has them, and what tests ask of them. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, Task, Worker } from "chicory"
import { RedisStore } from "chicory/redis"
import { Context, Deferred, Effect, Layer, Logger, Schedule, Schema, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import { type Server, type ServerError, type ServerOptions, startServer } from "./server.ts"

/** Both services. */
export type Store = Context.Context<Backend.Backend | Broker.Broker>

/** Does what it is told: waits, and gives its number. */
export const Count = Task.make("count", {
  payload: { n: Schema.Number, millis: Schema.Number },
  success: Schema.Number
})

/**
 * Opens a store as a process of its own would: with connections and a channel of its own. A client of NodeRedis that
 * has lost its connection is never closed, so at the end it is waited for.
 */
export const openStore = Effect.fnUntraced(function* (
  { url }: Pick<Server, "url">,
  options?: RedisStore.Options
): Effect.fn.Return<Store, unknown, Scope.Scope> {
  const client = yield* Layer.build(NodeRedis.layer({ url }))
  yield* Effect.addFinalizer(() =>
    Context.get(client, Redis.Redis)
      .send("PING")
      .pipe(Effect.timeout("1 second"), Effect.retry({ times: 9 }), Effect.ignore)
  )
  return yield* Layer.build(Layer.provide(RedisStore.layer(options), Layer.succeedContext(client)))
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

/** A handler of `Count` that tells of its runs. */
export const counting = () => {
  const begun: Array<number> = []
  const ended: Array<number> = []
  let interrupted = 0
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  const look = () => {
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
        look()
        yield* Effect.sleep(millis)
        ended.push(n)
        look()
        return n
      }).pipe(
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            interrupted++
            look()
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

/** How long an effect takes, in milliseconds, and what it gives. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [number, A], E, R> =>
  Effect.suspend(() => {
    const begin = performance.now()
    return Effect.map(effect, (value) => [performance.now() - begin, value] as const)
  })

/** Waits until it holds: where nothing tells. */
export const eventually = <E, R>(check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.asVoid(Effect.repeat(check, { schedule: Schedule.spaced("20 millis"), until: (holds) => holds }))

/** Waits until a server counts so many subscribers of processes' channels. */
export const untilSubscribed = (server: Server, count = 1): Effect.Effect<void, ServerError> =>
  eventually(
    Effect.map(
      server.command("PUBSUB", "CHANNELS", "*:process:*"),
      (channels) => (channels as ReadonlyArray<string>).length >= count
    )
  )

/** A task runs, and its result is pushed to the one that waits for it. */
export const roundTrip = (n: number) =>
  Effect.flatMap(Count.delay({ n, millis: 0 }), (handle) =>
    AsyncResult.get(handle, { timeout: "15 seconds" })
  )

/**
 * A test in real time, on a server of its own. However it ends, the server is there when its clients are closed:
 * they wait for the answers that are due to them.
 */
export const testWithServer = <E>(
  name: string,
  options: ServerOptions,
  body: (server: Server) => Effect.Effect<void, E, Scope.Scope>
): void =>
  it.live(
    name,
    () =>
      Effect.gen(function* () {
        const server = yield* startServer(options)
        const restored = Effect.ignore(Effect.andThen(server.resume, server.start))
        // the warnings of lost connections are expected
        yield* Effect.scoped(Effect.ensuring(body(server), restored)).pipe(Effect.provide(Logger.layer([])))
      }),
    30_000
  )
