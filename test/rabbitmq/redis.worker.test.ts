import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing"
import { Effect } from "effect"
import { describeWithRedis } from "../redis/server.ts"
import { temporaryDrivers } from "../redis/temporary.ts"
import { describeWithRabbit } from "./server.ts"
import { temporaryDriver } from "./temporary.ts"

// they mostly wait, in real time
const suite = () =>
  describe.concurrent("of workers", () => {
    WorkerSuite.suite("rabbitmq, with results in redis", {
      make: Effect.all({
        backend: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend } }) => backend),
        broker: temporaryDriver()
      }),
      live: true,
      unit: "500 millis"
    })
  })

await describeWithRabbit("conformance", suite)
void describeWithRedis
