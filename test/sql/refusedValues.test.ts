import { assert, describe, it } from "@effect/vitest"
import { type Backend, type Broker, Task } from "chicory"
import { Effect, Exit, Schema, type Scope } from "effect"
import type * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryDrivers } from "../sqlite/temporary.ts"
import { services } from "../support/storeLocations.ts"

const Keyed = Task.make("keyed", {
  payload: Schema.Struct({ key: Schema.String, text: Schema.String }),
  idempotencyKey: ({ key }) => key
})

const suite = (make: Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope>, refusesNul: boolean): void => {
  const test = (
    name: string,
    body: Effect.Effect<void, unknown, Backend.Backend | Broker.Broker | Scope.Scope>
  ) =>
    it.live(name, () =>
      Effect.flatMap(Effect.flatMap(make, services), (context) => Effect.provideContext(body, context))
    )

  test(
    "fails the task with a key that the database cannot store, and no other of the batch",
    Effect.gen(function* () {
      const keys = ["a", "b\0c", "d", "é🌶️", " ", "'; --", "?"]
      const exits = yield* Effect.forEach(
        keys,
        (key) => Effect.exit(Keyed.delay({ key, text: `\0 ${key} ${String.fromCharCode(0xd800)}` })),
        { concurrency: "unbounded" }
      )
      for (const [index, exit] of exits.entries()) {
        if (!refusesNul || keys[index] !== "b\0c") {
          assert.isTrue(Exit.isSuccess(exit), keys[index])
          continue
        }
        const refused = yield* Effect.flip(exit)
        assert(refused._tag === "BackendError")
        assert.isFalse(refused.retryable)
      }
    })
  )

  test(
    "distinguishes keys by every character, long ones too",
    Effect.gen(function* () {
      const keys = [
        "a",
        "A",
        "a ",
        "ä",
        "a\u0308",
        "a".repeat(900),
        `${"a".repeat(899)}b`,
        `${"é".repeat(1000)}`
      ]
      const ids = yield* Effect.forEach(keys, (key) =>
        Effect.map(Keyed.delay({ key, text: "" }), ({ taskId }) => taskId)
      )
      assert.strictEqual(new Set(ids).size, keys.length)
      const again = yield* Effect.forEach(keys, (key) =>
        Effect.map(Keyed.delay({ key, text: "" }), ({ taskId }) => taskId)
      )
      assert.deepStrictEqual(again, ids)
    })
  )
}

describe("sqlite: values", () => suite(temporaryDrivers, false))
await Postgres.describeWithPostgres("postgres: values", () => suite(Postgres.temporaryDrivers(), true))
await Mariadb.describeWithMariadb("mariadb: values", () => suite(Mariadb.temporaryDrivers(), false))
