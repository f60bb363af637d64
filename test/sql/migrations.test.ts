/** Migrations, on every database. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { Cause, Effect, Exit, Latch, Layer, Option, type Scope, Stream } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import { schema } from "../../src/sql/schema/schema.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { program } from "../support/processes.ts"
import { Count } from "../support/processTasks.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

type Location = StoreLocations.SqlLocation

type Open = typeof SqlStore.layer

const { layer, layerStorage } = SqlStore

const versionsKnown = ({ dialect }: Location) => schema[dialect].map(({ id }) => id)

/** The statements of the script. */
const statementsOf = ({ dialect, prefix }: Location) =>
  SqlStore.migrations(dialect, { prefix })
    .split(/;\n(?:\n|$)/)
    .filter((statement) => statement !== "")

/** Opens a store over the client of the test. */
const open = (location: Location, by: Open) => Layer.build(by({ prefix: location.prefix }))

/** Returns the error with which a store fails to open. */
const refusal = (location: Location, by: Open) => Effect.flip(Effect.scoped(open(location, by)))

/** Enqueues a task, runs it and awaits its result. */
const roundTrip = Effect.gen(function* () {
  yield* Layer.build(
    Layer.provide(
      Worker.layer([Count]),
      Count.toLayer(({ n }) => Effect.succeed({ n, pid: 0 }))
    )
  )
  const handle = yield* Count.delay({ n: 1, millis: 0 })
  assert.deepStrictEqual(yield* AsyncResult.get(handle), { n: 1, pid: 0 })
})

/** Checks that a store opens and runs a task. */
const expectWorking = (location: Location, by: Open) =>
  Effect.scoped(Effect.flatMap(open(location, by), (store) => Effect.provideContext(roundTrip, store)))

const versions = Effect.fnUntraced(function* ({ prefix }: Location) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly version: number }>`
    SELECT version FROM ${sql(`${prefix}_schema`)} ORDER BY version`
  return rows.map(({ version }) => Number(version))
})

/** Returns columns, domains, indexes and functions of the tables as texts, without schema and prefix. */
const structure = Effect.fnUntraced(function* (location: Location) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql.onDialectOrElse({
    sqlite: () =>
      sql<{
        readonly what: string
      }>`SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS what FROM sqlite_master`,
    pg: () => sql<{ readonly what: string }>`
      SELECT concat_ws(' ', table_name, column_name, data_type, domain_name, collation_name, is_nullable, column_default) AS what
      FROM information_schema.columns WHERE table_schema = current_schema()
      UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()
      UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
      UNION ALL SELECT concat_ws(' ', domain_name, check_clause) FROM information_schema.domain_constraints
      JOIN information_schema.check_constraints USING (constraint_schema, constraint_name) WHERE domain_schema = current_schema()
      UNION ALL SELECT concat_ws(' ', relname, array_to_string(reloptions, ' ')) FROM pg_class
      WHERE relnamespace = current_schema()::regnamespace`,
    orElse: () => sql<{ readonly what: string }>`
      SELECT CONCAT_WS(' ', table_name, column_name, column_type, collation_name, is_nullable, extra) AS what
      FROM information_schema.columns WHERE table_schema = DATABASE()
      UNION ALL SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, non_unique)
      FROM information_schema.statistics WHERE table_schema = DATABASE()`
  })
  return rows
    .map(({ what }) => what.replaceAll(location.dialect === "postgres" ? location.schema : "-", ""))
    .filter((what) => what.includes(location.prefix))
    .map((what) => what.replaceAll(location.prefix, ""))
    .toSorted()
})

/** Starts a process that waits to open a store; returns an effect that lets it, and returns how it ended. */
const opener = Effect.fnUntraced(function* (location: Location, statements?: number) {
  const gate = Latch.makeUnsafe()
  const child = yield* program(
    "../sql/opener.ts",
    [StoreLocations.encode(location), ...(statements === undefined ? [] : [String(statements)])],
    { stdin: Stream.fromEffectDrain(gate.await) }
  )
  yield* Stream.runHead(child.stdout)
  return Effect.andThen(
    gate.open,
    Effect.map(
      Effect.exit(child.exitCode),
      Exit.match({
        onFailure: () => "killed" as const,
        onSuccess: Number
      })
    )
  )
})

/** Returns another location in the same database. */
const neighbour = (location: Location) =>
  location.dialect === "mysql" ? TemporaryLocations.mariadb : Effect.succeed({ ...location, prefix: "other" })

/** Makes drivers that the store takes for another process. */
const drivers = (location: Location) =>
  Effect.flatMap(Layer.build(StoreLocations.clientLayer(location)), (client) =>
    Effect.provideContext(Effect.andThen(Migrations.run(location), SqlDrivers.make(location)), client)
  )

/** Collects the ids of the hints that a process receives. */
const collectHints = Effect.fnUntraced(function* (location: Location) {
  const told = new Set<string>()
  const { backend } = yield* drivers(location)
  yield* Stream.runForEach(backend.hints ?? Stream.empty, (hint) =>
    Effect.sync(() => {
      if (hint !== "resync") for (const one of hint) told.add(typeof one === "string" ? one : one.id)
    })
  ).pipe(Effect.forkScoped)
  return told
})

/** Cancels tasks, which notifies every process, until a hint arrives: listening takes a moment to begin. */
const notifyUntilReceived = ({ backend }: SqlDrivers.Drivers, told: ReadonlySet<string>) =>
  Effect.suspend(() => {
    const id = crypto.randomUUID()
    const record = {
      id,
      task: "t",
      incarnation: "",
      queue: "default",
      key: undefined,
      payloadHash: "",
      delayMillis: 0,
      expiresMillis: undefined,
      retentionMillis: undefined,
      reservedMillis: undefined
    }
    return Effect.as(Effect.andThen(backend.create([record]), backend.cancel([id])), id)
  }).pipe(
    Effect.tap(() => Effect.sleep("50 millis")),
    Effect.repeat({ until: (id) => told.has(id) }),
    Effect.timeout("10 seconds")
  )

const suite = (temporaryLocation: Effect.Effect<Location, unknown, Scope.Scope>): void => {
  /** Adds a test with an empty database or schema. */
  const test = (
    name: string,
    body: (
      location: Location
    ) => Effect.Effect<
      void,
      unknown,
      Scope.Scope | SqlClient.SqlClient | ChildProcessSpawner.ChildProcessSpawner
    >
  ) =>
    it.live(name, () =>
      Effect.gen(function* () {
        const location = yield* temporaryLocation
        yield* Effect.provide(
          Effect.scoped(body(location)),
          Layer.merge(NodeServices.layer, StoreLocations.clientLayer(location))
        )
      })
    )

  test("starts ten processes at once on an empty database", (location) =>
    Effect.gen(function* () {
      const processes = yield* Effect.replicateEffect(opener(location), 10, { concurrency: 5 })
      const codes = yield* Effect.all(processes, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        codes,
        Array.from({ length: 10 }, () => 0)
      )
      assert.deepStrictEqual(yield* versions(location), versionsKnown(location))
      const store = yield* open(location, layerStorage)
      const [counts] = yield* Effect.provideContext(Broker.counts(["default"]), store)
      assert.strictEqual(counts?.ready, 10)
    }))

  test("creates the same tables by the script as by the layer", (location) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (const statement of statementsOf(location)) yield* sql.unsafe(statement)
      assert.deepStrictEqual(yield* versions(location), versionsKnown(location))
      yield* expectWorking(location, layerStorage)
      // nothing is left to apply
      yield* expectWorking(location, layer)
      const byHand = yield* structure(location)

      const other = yield* temporaryLocation
      const byLayer = Effect.scoped(Effect.andThen(open(other, layer), structure(other)))
      assert.deepStrictEqual(byHand, yield* Effect.provide(byLayer, StoreLocations.clientLayer(other)))
      assert.isAtLeast(byHand.length, 15)
    }))

  test("fails without tables where the layer does not migrate, says what to do, and creates none", (location) =>
    Effect.gen(function* () {
      const error = yield* refusal(location, layerStorage)
      assert.instanceOf(error, Backend.BackendError)
      assert.instanceOf(error.cause, Migrations.SchemaTooOld)
      assert.isFalse(error.retryable)
      assert.include(error.message, "it has no tables of chicory")
      assert.include(error.message, "SqlStore.migrations")
      assert.deepStrictEqual(yield* structure(location), [])
    }))

  for (const [name, by] of Object.entries({ layer, layerStorage })) {
    test(`refuses tables of a newer version with ${name}, and says what to do`, (location) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.scoped(open(location, layer))
        const schema = sql(`${location.prefix}_schema`)
        yield* sql`INSERT INTO ${schema} (version, needs, name, applied_at) VALUES (99, 98, 'of tomorrow', 0)`
        const error = yield* refusal(location, by)
        assert.instanceOf(error, Backend.BackendError)
        assert.instanceOf(error.cause, Migrations.SchemaTooNew)
        assert.isFalse(error.retryable)
        assert.include(error.message, "version 99 and need code that knows version 98")
        assert.include(error.message, "update chicory, or give another prefix")
        assert.deepStrictEqual(yield* versions(location), [...versionsKnown(location), 99])
      }))
  }

  for (const [name, by] of Object.entries({ layer, layerStorage })) {
    test(`works with ${name} on tables of a newer version that this code suffices for`, (location) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.scoped(open(location, layer))
        const needs = Math.max(...versionsKnown(location))
        const schema = sql(`${location.prefix}_schema`)
        yield* sql`INSERT INTO ${schema} (version, needs, name, applied_at) VALUES (99, ${needs}, 'of tomorrow', 0)`
        yield* expectWorking(location, by)
        assert.deepStrictEqual(yield* versions(location), [...versionsKnown(location), 99])
      }))
  }

  test("dies with an invalid prefix", (location) =>
    Effect.gen(function* () {
      const prefixes = [
        "",
        "1st",
        "with space",
        "with-dash",
        'a"; DROP TABLE x; --',
        "é",
        "a\n",
        "p".repeat(41)
      ]
      for (const prefix of prefixes) {
        for (const by of [layer, layerStorage]) {
          const exit = yield* Effect.exit(Effect.scoped(open({ ...location, prefix }, by)))
          assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause), `a defect: ${prefix}`)
          assert.include(Cause.pretty(exit.cause), "is not valid")
        }
        assert.throws(() => SqlStore.migrations(location.dialect, { prefix }), "is not valid")
      }
      assert.deepStrictEqual(yield* structure(location), [])
    }))

  test("completes the migration of a process that was killed", (location) =>
    Effect.gen(function* () {
      const count = statementsOf(location).length
      for (const statements of [6, Math.floor(count / 2) + 4, count]) {
        const start = yield* opener(location, statements)
        assert.strictEqual(yield* start, "killed", `after ${statements} statements`)
        const error = yield* refusal(location, layerStorage)
        assert.instanceOf(error.cause, Migrations.SchemaTooOld)
        const left = yield* structure(location)
        // only MariaDB cannot roll back a change of the schema
        if (location.dialect === "mysql") assert.isNotEmpty(left)
        else assert.isEmpty(left)
      }
      yield* expectWorking(location, layer)
      assert.deepStrictEqual(yield* versions(location), versionsKnown(location))
      const found = yield* structure(location)

      const other = yield* temporaryLocation
      const atOnce = Effect.scoped(Effect.andThen(open(other, layer), structure(other)))
      assert.deepStrictEqual(found, yield* Effect.provide(atOnce, StoreLocations.clientLayer(other)))
    }))

  test("separates stores with different prefixes in one database", (location) =>
    Effect.gen(function* () {
      const other = yield* neighbour(location)
      const [here, there] = [yield* open(location, layer), yield* open(other, layer)]
      const id = "the same id"
      const one = yield* Effect.provideContext(Count.delay({ n: 1, millis: 0 }, { id }), here)
      const [counts] = yield* Effect.provideContext(Broker.counts(["default"]), there)
      assert.deepStrictEqual([counts?.ready, counts?.delayed, counts?.claimed], [0, 0, 0])
      assert.isTrue(Option.isNone(yield* Effect.provideContext(AsyncResult.poll(Count.result(id)), there)))
      yield* Effect.provideContext(roundTrip, there)
      assert.strictEqual(yield* Effect.provideContext(AsyncResult.state(one), here), "PENDING")

      const two = yield* Effect.provideContext(Count.delay({ n: 2, millis: 0 }, { id }), there)
      yield* Effect.provideContext(roundTrip, here)
      for (const [store, handle, n] of [
        [here, one, 1],
        [there, two, 2]
      ] as const) {
        const value = yield* Effect.provideContext(AsyncResult.get(handle), store)
        assert.strictEqual(value.n, n)
      }
      yield* Effect.provideContext(AsyncResult.forget(one), here)
      assert.strictEqual(yield* Effect.provideContext(AsyncResult.state(two), there), "SUCCESS")
    }))
}

describe("sqlite: migrations", () => suite(TemporaryLocations.sqlite))

await describeWithMariadb("mariadb: migrations", () => suite(TemporaryLocations.mariadb))

await describeWithPostgres("postgres: migrations", () => {
  suite(TemporaryLocations.postgres)

  it.live("notifies processes of their own prefix only", () =>
    Effect.gen(function* () {
      const here = yield* TemporaryLocations.postgres
      const there = { ...here, prefix: "other" }
      const [received, sender] = [yield* collectHints(here), yield* drivers(here)]
      const [receivedThere, senderThere] = [yield* collectHints(there), yield* drivers(there)]
      yield* notifyUntilReceived(sender, received)
      yield* notifyUntilReceived(senderThere, receivedThere)
      // a channel keeps the order, so that earlier notifications have arrived
      assert.isAbove(received.size, 0)
      for (const id of received) assert.isFalse(receivedThere.has(id))
      for (const id of receivedThere) assert.isFalse(received.has(id))
    })
  )
})
