/**
 * A process that opens a store when its input ends, and enqueues a task: `opener.ts <location> [<statements>]`. With a
 * number it kills itself after as many statements.
 */
import { SqlStore } from "chicory/sql"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Count } from "../support/processTasks.ts"
import * as StoreLocations from "../support/storeLocations.ts"

const location = StoreLocations.decode(process.argv[2]) as StoreLocations.SqlLocation
const statements = Number(process.argv[3] ?? Infinity)

/** Returns a client that kills the process at the next statement. */
const killing = (client: SqlClient.SqlClient): SqlClient.SqlClient => {
  let sent = 0
  const unsafe: SqlClient.SqlClient["unsafe"] = (...args) => {
    if (sent++ >= statements) process.kill(process.pid, "SIGKILL")
    return client.unsafe(...args)
  }
  const killed: SqlClient.SqlClient = Object.assign(Object.create(client) as SqlClient.SqlClient, {
    unsafe,
    withoutTransforms: () => killed
  })
  return killed
}

const inputEnds = Effect.callback<void>((resume) => {
  process.stdin.resume().once("end", () => resume(Effect.void))
})

Effect.gen(function* () {
  const context = yield* Layer.build(StoreLocations.clientLayer(location))
  process.stdout.write("ready\n")
  yield* inputEnds
  const client = killing(Context.get(context, SqlClient.SqlClient))
  const store = Layer.provide(
    SqlStore.layer({ prefix: location.prefix }),
    Layer.succeed(SqlClient.SqlClient, client)
  )
  yield* Effect.provide(Count.send({ n: process.pid, millis: 0 }), store)
})
  .pipe(Effect.scoped, Effect.runPromise)
  .catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
