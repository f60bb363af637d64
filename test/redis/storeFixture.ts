/** Stores over one server, as a program has them. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { RedisStore } from "chicory/redis"
import { Context, Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import type { ServerError } from "../support/ownServers.ts"
import { eventually, type Store } from "../support/storeFixture.ts"
import { testOn } from "../support/testOn.ts"
import { type Server, startServer } from "./server.ts"

/** A client. One of NodeRedis that has lost its connection is never closed, so at the end it is waited for. */
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

/** Opens a store as a process of its own would: with connections and a channel of its own. */
export const openStore = (
  { url }: Pick<Server, "url">,
  options?: RedisStore.Options
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Effect.flatMap(clientOf(url), (client) =>
    Layer.build(Layer.provide(RedisStore.layer(options), Layer.succeedContext(client)))
  )

/** Waits until a server counts so many subscribers of processes' channels. */
export const untilSubscribed = (server: Server, count = 1): Effect.Effect<void, ServerError> =>
  eventually(
    Effect.map(
      server.command("PUBSUB", "CHANNELS", "*:process:*"),
      (channels) => (channels as ReadonlyArray<string>).length >= count
    )
  )

/** A test in real time, on a server of its own. */
export const testWithServer = testOn(startServer, 60_000)
