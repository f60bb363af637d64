import { Effect } from "effect"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { temporaryDriver } from "../rabbitmq/temporary.ts"
import { temporaryDrivers } from "../sqlite/temporary.ts"
import { testLive } from "./liveModel.ts"

// every queue costs RabbitMQ file handles: there are few stores, with one queue each
await describeWithRabbit("RabbitMQ with SQLite", () =>
  testLive({
    make: Effect.all({
      broker: temporaryDriver(),
      backend: Effect.map(temporaryDrivers, ({ backend: { fusion: _, ...backend } }) => backend)
    }),
    unit: 500,
    queues: ["x"],
    concurrency: 3
  })
)
