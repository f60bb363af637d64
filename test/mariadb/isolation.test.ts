import { assert, it } from "@effect/vitest"
import { SqlStore } from "chicory/sql"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithMariadb, sharedUrl } from "./server.ts"

await describeWithMariadb("mariadb: isolation", () => {
  it.live("fails to open a store with another isolation level than READ COMMITTED", () =>
    Effect.gen(function* () {
      // the only connection, which the layer uses
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
