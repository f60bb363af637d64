import { afterAll, beforeAll, describe } from "@effect/vitest"
import { BackendSuite, BrokerSuite, WorkerSuite } from "chicory/testing/suites"
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import * as RedisCluster from "../../src/redis/RedisCluster.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { type Cluster, describeWithServers, startCluster } from "./server.ts"
import { makePrefix } from "./temporary.ts"

describeWithServers("conformance on a cluster of three nodes", () => {
  const scope = Scope.makeUnsafe()
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Effect.runPromise(Scope.provide(startCluster(), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  const drivers = Effect.gen(function* () {
    const client = RedisCluster.layer({ rootNodes: cluster.rootNodes })
    const redis = yield* Layer.build(Layer.provideMerge(client, Logger.layer([])))
    return yield* Effect.provideContext(RedisStore.makeDrivers({ prefix: makePrefix(), shards: 3 }), redis)
  })

  // these tests mostly wait, in real time
  describe.concurrent("with three shards", () => {
    BackendSuite.suite("redis", { make: Effect.map(drivers, ({ backend }) => backend), live: true })
    BrokerSuite.suite("redis", { make: Effect.map(drivers, ({ broker }) => broker), live: true })
    WorkerSuite.suite("redis", { make: drivers, live: true, unit: "500 millis" })
  })
})
