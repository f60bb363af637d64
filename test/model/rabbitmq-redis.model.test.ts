import { Effect } from "effect"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { temporaryDriver } from "../rabbitmq/temporary.ts"
import { describeWithRedis, isUp } from "../redis/server.ts"
import { temporaryDrivers } from "../redis/temporary.ts"
import { testLive } from "./liveModel.ts"

/** Both servers are needed; a skipped suite names the missing one. */
const describeWithBoth = (await Effect.runPromise(isUp)) ? describeWithRabbit : describeWithRedis

// every queue costs RabbitMQ file handles: there are few stores, with one queue each
await describeWithBoth("RabbitMQ with Redis", () =>
  testLive({
    make: Effect.all({
      broker: temporaryDriver(),
      backend: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend } }) => backend)
    }),
    unit: 500,
    queues: ["x"],
    concurrency: 3
  })
)
