import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import type { Start } from "../../src/BackendDriver.ts"
import type * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { record, startRequest } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryDrivers } from "../sqlite/temporary.ts"

const startOf = (token: string, more?: Partial<Start>): Start =>
  startRequest("a", token, { task: "t", incarnation: "i1", leaseMillis: 1, ...more })

const suite = (make: Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope>): void => {
  it.live(
    "copies of a message in one batch lead to one run, though the batch takes longer than its lease",
    () =>
      Effect.gen(function* () {
        const { backend } = yield* make
        yield* backend.create([record("a", { task: "t", incarnation: "i1" })])
        const copies = Arr.map(Arr.range(2, 8), (n) => startOf(`t${n}`))
        const started = yield* backend.start([
          startOf("t1"),
          ...copies,
          startOf("t9", { incarnation: "i0" }),
          startOf("t9", { task: "another" }),
          startOf("t1")
        ])
        const run = { _tag: "Run", fence: 1, attempt: 1, retries: 0, crashes: 0 } as const
        const busy = { _tag: "Busy", millis: 1 } as const
        const drop = { _tag: "Drop" } as const
        assert.deepStrictEqual(started, [run, ...copies.map(() => busy), drop, drop, run])
        yield* Effect.sleep("10 millis")
        // in a batch of its own it finds that the lease is over
        assert.deepStrictEqual(yield* backend.start([startOf("t2")]), [
          { ...run, fence: 2, attempt: 2, crashes: 1, lostWorker: "worker of t1" }
        ])
      })
  )
}

describe("sqlite: start", () => suite(temporaryDrivers))
await Postgres.describeWithPostgres("postgres: start", () => suite(Postgres.temporaryDrivers()))
await Mariadb.describeWithMariadb("mariadb: start", () => suite(Mariadb.temporaryDrivers()))
