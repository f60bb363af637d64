import { assert, it } from "@effect/vitest"
import { SqlStore } from "chicory/sql"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithMariadb, sharedUrl } from "./server.ts"

await describeWithMariadb("the isolation of transactions", () => {
  it.live("has to be READ COMMITTED, and the layer says so", () =>
    Effect.gen(function* () {
      // the only connection, so the one that the layer finds
      const client = yield* MysqlClient.make({ url: sharedUrl, maxConnections: 1 })
      yield* client.unsafe("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
      const layers = [SqlStore.layer({ prefix: "never" }), SqlStore.layerStorage({ prefix: "never" })]
      for (const layer of layers) {
        const refused = yield* Effect.flip(
          Layer.build(Layer.provide(layer, Layer.succeed(SqlClient.SqlClient, client)))
        )
        assert.strictEqual(refused._tag, "BackendError")
        assert.isFalse(refused.retryable)
        assert.include(refused.message, "REPEATABLE-READ")
        assert.include(refused.message, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
      }
    })
  )
})
