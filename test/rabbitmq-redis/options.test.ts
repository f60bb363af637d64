import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, it } from "@effect/vitest"
import { Backend, Broker } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { RedisBackend, RedisBroker, RedisStore } from "chicory/redis"
import { Context, Duration, Effect, Layer } from "effect"
import { describeWithRabbit, sharedUrl as rabbitUrl } from "../rabbitmq/server.ts"
import { temporaryPrefix as rabbitPrefix } from "../rabbitmq/shared.ts"
import { describeWithRedis, isUp, sharedUrl as redisUrl } from "../redis/server.ts"
import { temporaryPrefix as redisPrefix } from "../redis/temporary.ts"

const describeWithBoth = (await Effect.runPromise(isUp)) ? describeWithRabbit : describeWithRedis

const retention = "7 minutes"
const lease = "77 seconds"

const layers: Record<
  string,
  (prefixes: {
    readonly redis: string
    readonly rabbitmq: string
  }) => Layer.Layer<Backend.Backend | Broker.Broker, unknown, RedisStoreServices>
> = {
  RedisStore: ({ redis }) => RedisStore.layer({ prefix: redis, retention, lease }),
  "RedisBackend and RedisBroker": ({ redis }) =>
    Layer.merge(
      RedisBackend.layer({ prefix: redis, retention }),
      RedisBroker.layer({ prefix: redis, lease })
    ),
  "RedisBackend and RabbitBroker": ({ rabbitmq, redis }) =>
    Layer.merge(
      RedisBackend.layer({ prefix: redis, retention }),
      RabbitBroker.layer({ url: rabbitUrl, prefix: rabbitmq, lease })
    )
}
type RedisStoreServices = Layer.Services<ReturnType<typeof RedisStore.layer>>

await describeWithBoth("the defaults of tasks and workers", () => {
  for (const [store, layer] of Object.entries(layers)) {
    it.live(`are options of ${store}`, () =>
      Effect.gen(function* () {
        const prefixes = { redis: yield* redisPrefix, rabbitmq: yield* rabbitPrefix() }
        const context = yield* Layer.build(Layer.provide(layer(prefixes), NodeRedis.layer({ url: redisUrl })))
        assert.strictEqual(Context.get(context, Backend.Backend).retentionMillis, 7 * 60_000)
        assert.strictEqual(Duration.toMillis(Context.get(context, Broker.Broker).lease), 77_000)
      })
    )
  }
})
