/** Stores on the server of one test. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { RedisStore } from "chicory/redis"
import { Context, Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import type { ServerError } from "../support/ownServers.ts"
import { eventually, type Store } from "../support/storeFixture.ts"
import { testOn } from "../support/testOn.ts"
import { type Server, startServer } from "./server.ts"

/** Connects a client. NodeRedis never closes a client that is disconnected, so the finalizer waits for its reconnection. */
export const clientOf = (
  url: string
): Effect.Effect<Context.Context<Redis.Redis>, Redis.RedisError, Scope.Scope> =>
  Effect.tap(Layer.build(NodeRedis.layer({ url })), (client) =>
    Effect.addFinalizer(() =>
      Context.get(client, Redis.Redis)
        .send("PING")
        .pipe(Effect.timeout("1 second"), Effect.retry({ times: 9 }), Effect.ignore)
    )
  )

/** Opens a store with its own connections and channel, as another process would. */
export const openStore = (
  { url }: Pick<Server, "url">,
  options?: RedisStore.Options
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Effect.flatMap(clientOf(url), (client) =>
    Layer.build(Layer.provide(RedisStore.layer(options), Layer.succeedContext(client)))
  )

/** Waits until at least `count` processes are subscribed to their channels. */
export const untilSubscribed = (server: Server, count = 1): Effect.Effect<void, ServerError> =>
  eventually(
    Effect.map(
      server.command("PUBSUB", "CHANNELS", "*:process:*"),
      (channels) => (channels as ReadonlyArray<string>).length >= count
    )
  )

/** Adds a test in real time, on its own server. */
export const testWithServer = testOn(startServer, 60_000)
