import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import type { NewRecord } from "../../src/BackendDriver.ts"
import type * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryDrivers } from "../sqlite/temporary.ts"

const recordOf = (id: string, more: Partial<NewRecord>): NewRecord => ({
  id,
  task: "t",
  key: undefined,
  payloadHash: "",
  expiresMillis: undefined,
  retentionMillis: 1,
  published: true,
  ...more
})

const suite = (make: Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope>): void => {
  it.live("finds overdue rows behind many tasks that wait for longer than their retention", () =>
    Effect.gen(function* () {
      const { backend } = yield* make
      yield* backend.create(Arr.map(Arr.range(1, 30), (n) => recordOf(`waits ${n}`, {})))
      yield* Effect.sleep("10 millis")
      yield* backend.create([
        recordOf("over", { published: false }),
        recordOf("late", { expiresMillis: 1, retentionMillis: 60_000 })
      ])
      yield* Effect.sleep("10 millis")
      assert.strictEqual(yield* backend.sweep(10), 2)
      const [over, late, waiting] = yield* backend.read(["over", "late", "waits 1"])
      assert.isUndefined(over)
      assert.strictEqual(late?.ended, "Expired")
      assert.strictEqual(waiting?.state, "PENDING")
      assert.strictEqual(yield* backend.sweep(10), 0)
    })
  )
}

describe("sqlite: sweep", () => suite(temporaryDrivers))
await Postgres.describeWithPostgres("postgres: sweep", () => suite(Postgres.temporaryDrivers()))
await Mariadb.describeWithMariadb("mariadb: sweep", () => suite(Mariadb.temporaryDrivers()))
