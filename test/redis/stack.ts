/** Stores over one server, as a program has them. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { it } from "@effect/vitest"
import { RedisStore } from "chicory/redis"
import { Context, Effect, Layer, Logger, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import { eventually, type Store } from "../support/stack.ts"
import { type Server, type ServerError, type ServerOptions, startServer } from "./server.ts"

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

/** Waits until a server counts so many subscribers of processes' channels. */
export const untilSubscribed = (server: Server, count = 1): Effect.Effect<void, ServerError> =>
  eventually(
    Effect.map(
      server.command("PUBSUB", "CHANNELS", "*:process:*"),
      (channels) => (channels as ReadonlyArray<string>).length >= count
    )
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
