/** Opening a store on databases that it cannot use, or not yet. */
import { inspect } from "node:util"
import { assert, describe } from "@effect/vitest"
import type { Backend } from "chicory"
import { SqlBackend, SqlBroker, SqlStore } from "chicory/sql"
import { Context, Effect, Layer, type Scope } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { checkRights, MissingRights } from "../../src/sql/schema/checkRights.ts"
import { SchemaTooNew, SchemaTooOld } from "../../src/sql/schema/Migrations.ts"
import { spyOn } from "../sql/statementSpy.ts"
import { Count, countingHandler, roundTrip, startWorker } from "../support/storeFixture.ts"
import {
  clientOf,
  describeWithOwnPostgres,
  type OwnServer,
  openStore,
  testWithServer as test
} from "./ownServer.ts"

/** Returns the error with which a layer fails. */
const failureOf = <A>(
  layer: Layer.Layer<A, Backend.BackendError | SqlError.SqlError, SqlClient.SqlClient>,
  url: string
) =>
  Effect.map(Effect.flip(Effect.scoped(Layer.build(Layer.provide(layer, clientOf(url))))), (error) => {
    assert(error._tag === "BackendError", String(error))
    return error
  })

/** Returns the errors of a layer that migrates and of one that does not. */
const failuresOf = (url: string) =>
  Effect.forEach([SqlStore.layer(), SqlStore.layerStorage()], (layer) => failureOf(layer, url))

const asSqlError = ({ cause }: Backend.BackendError): SqlError.SqlError => {
  assert(SqlError.isSqlError(cause), inspect(cause))
  return cause
}

/** Creates a role that may connect, and has no other rights. */
const createRole = (server: OwnServer, name: string, password = "") =>
  server.query(`CREATE ROLE ${name} LOGIN ${password === "" ? "" : `PASSWORD '${password}'`}`)

/** Grants the rights that the documentation names for a role that does not change the schema. */
const grantUse = (server: OwnServer, name: string) =>
  server.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${name}`)

/** Creates the tables with a role that may. */
const migrate = (server: OwnServer) => Effect.scoped(openStore(server))

const worksAs = (server: OwnServer, url: string): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const open = Layer.build(Layer.provide(SqlStore.layerStorage(), clientOf(url)))
    const store = yield* open
    yield* startWorker(yield* open, Count, countingHandler().layer)
    assert.strictEqual(yield* Effect.provideContext(roundTrip(7), store), 7)
    const [row] = yield* server.query("SELECT state FROM chicory_tasks")
    assert.deepStrictEqual(row, { state: "SUCCESS" })
  })

describeWithOwnPostgres("postgres: opening a store", () => {
  describe.concurrent("on a server", () => {
    test("fails with a wrong password, which the error does not show", { lockedUser: "app" }, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app", "the right one")
        for (const password of ["wrong-and-secret", undefined]) {
          for (const error of yield* failuresOf(server.urlOf({ user: "app", password }))) {
            assert.strictEqual(asSqlError(error).reason._tag, "AuthenticationError")
            assert.isFalse(error.retryable)
            assert.include(error.message, "password")
            assert.notInclude(inspect(error, { depth: Infinity, showHidden: true }), "wrong-and-secret")
            assert.notInclude(JSON.stringify(error), "wrong-and-secret")
          }
        }
        yield* Effect.scoped(
          Effect.andThen(
            server.query("GRANT ALL ON SCHEMA public TO app"),
            openStore({ url: server.urlOf({ user: "app", password: "the right one" }) })
          )
        )
      })
    )

    test("names a database that does not exist", {}, (server) =>
      Effect.gen(function* () {
        for (const error of yield* failuresOf(server.urlOf({ database: "nowhere" }))) {
          asSqlError(error)
          assert.include(error.message, `database "nowhere" does not exist`)
        }
      })
    )

    test("fails as retryable if the connection is refused", {}, (server) =>
      Effect.gen(function* () {
        yield* server.kill
        for (const error of yield* failuresOf(server.url)) {
          assert.strictEqual(asSqlError(error).reason._tag, "ConnectionError")
          assert.isTrue(error.retryable)
          assert.include(error.message, "ECONNREFUSED")
        }
      })
    )

    test("fails as retryable if the server is read-only", {}, (server) =>
      Effect.gen(function* () {
        yield* server.setReadOnly(true)
        const error = yield* failureOf(SqlStore.layer(), server.url)
        assert.isTrue(error.retryable)
        assert.include(error.message, "read-only")
        yield* server.setReadOnly(false)
        yield* migrate(server)
      })
    )

    test("opens a store that exists on a server that is read-only", {}, (server) =>
      Effect.gen(function* () {
        yield* migrate(server)
        yield* server.setReadOnly(true)
        yield* Effect.scoped(openStore(server))
      })
    )
  })

  describe.concurrent("as a role that may not change the schema", () => {
    test("fails if there are no tables", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        const error = yield* failureOf(SqlStore.layer(), server.urlOf({ user: "app" }))
        assert.strictEqual(asSqlError(error).reason._tag, "AuthorizationError")
        assert.isFalse(error.retryable)
        assert.include(error.message, "permission denied for schema public")
      })
    )

    test("works with existing tables", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        yield* migrate(server)
        yield* grantUse(server, "app")
        yield* worksAs(server, server.urlOf({ user: "app" }))
        // there is nothing to migrate
        yield* Effect.scoped(openStore({ url: server.urlOf({ user: "app" }) }))
      })
    )

    test("fails if it lacks rights on the tables, and names them", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        yield* migrate(server)
        yield* grantUse(server, "app")
        yield* server.query("REVOKE DELETE ON chicory_tasks, chicory_workers FROM app")
        yield* server.query("REVOKE INSERT ON chicory_listeners FROM app")
        for (const error of yield* failuresOf(server.urlOf({ user: "app" }))) {
          assert(error.cause instanceof MissingRights)
          assert.deepStrictEqual(error.cause.denied, [
            "DELETE on chicory_tasks",
            "DELETE on chicory_workers",
            "INSERT on chicory_listeners"
          ])
          assert.deepStrictEqual(error.cause.grants, [
            `GRANT DELETE ON "chicory_tasks" TO app`,
            `GRANT DELETE ON "chicory_workers" TO app`,
            `GRANT INSERT ON "chicory_listeners" TO app`
          ])
          assert.include(error.message, "DELETE on chicory_tasks")
          assert.isFalse(error.retryable)
        }
        yield* server.query(`GRANT DELETE ON "chicory_tasks" TO app`)
        yield* server.query(`GRANT DELETE ON "chicory_workers" TO app`)
        yield* server.query(`GRANT INSERT ON "chicory_listeners" TO app`)
        yield* worksAs(server, server.urlOf({ user: "app" }))
      })
    )

    test("fails if it may not call the function that claims, and names it", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        yield* migrate(server)
        yield* grantUse(server, "app")
        yield* server.query("REVOKE EXECUTE ON FUNCTION chicory_claim_1 FROM public")
        const error = yield* failureOf(SqlStore.layerStorage(), server.urlOf({ user: "app" }))
        assert(error.cause instanceof MissingRights)
        assert.deepStrictEqual(error.cause.denied, ["EXECUTE on chicory_claim_1"])
        const [grant = ""] = error.cause.grants
        assert.strictEqual(grant, `GRANT EXECUTE ON FUNCTION "chicory_claim_1" TO app`)
        yield* server.query(grant)
        yield* worksAs(server, server.urlOf({ user: "app" }))
      })
    )

    test("asks for its rights in one statement, and of a role that it is a member of too", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "worker_role")
        yield* createRole(server, "app")
        yield* migrate(server)
        yield* grantUse(server, "worker_role")
        yield* server.query("GRANT worker_role TO app")
        const client = yield* Effect.map(
          Layer.build(clientOf(server.urlOf({ user: "app" }))),
          Context.get(SqlClient.SqlClient)
        )
        const spy = spyOn(client)
        yield* Effect.provideService(checkRights(), SqlClient.SqlClient, spy.client)
        assert.strictEqual(spy.asked.size, 1)
      })
    )

    test("works after the script was applied", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        yield* server.script(SqlStore.migrations("postgres"))
        yield* grantUse(server, "app")
        yield* worksAs(server, server.urlOf({ user: "app" }))
      })
    )

    test("fails if it may not read", {}, (server) =>
      Effect.gen(function* () {
        yield* createRole(server, "app")
        yield* migrate(server)
        for (const error of yield* failuresOf(server.urlOf({ user: "app" }))) {
          assert.strictEqual(asSqlError(error).reason._tag, "AuthorizationError")
          assert.isFalse(error.retryable)
          assert.include(error.message, "permission denied for table chicory_")
        }
      })
    )
  })

  describe.concurrent("with tables", () => {
    test("fails with the script to apply if they are missing", {}, (server) =>
      Effect.gen(function* () {
        for (const layer of [
          SqlStore.layerStorage(),
          SqlBackend.layerStorage(),
          SqlStore.layerStorage({ prefix: "other" })
        ]) {
          const error = yield* failureOf(layer, server.url)
          assert.isFalse(error.retryable)
          assert(error.cause instanceof SchemaTooOld)
          assert.strictEqual(error.cause.found, 0)
          assert.include(error.message, "SqlStore.migrations")
        }
        const broker = Layer.provide(SqlBroker.layerStorage(), clientOf(server.url))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(broker)))
        assert(error._tag === "BrokerError")
        assert(error.cause instanceof SchemaTooOld)
      })
    )

    test("fails with a hint to update if they are of a newer version", {}, (server) =>
      Effect.gen(function* () {
        yield* migrate(server)
        yield* server.query(
          "INSERT INTO chicory_schema (version, needs, name, applied_at) VALUES (999, 999, 'from the future', 0)"
        )
        for (const error of yield* failuresOf(server.url)) {
          assert.isFalse(error.retryable)
          assert(error.cause instanceof SchemaTooNew)
          assert.strictEqual(error.cause.found, 999)
          assert.include(error.message, "update chicory")
        }
      })
    )
  })

  describe.concurrent("behind a transaction pooler", () => {
    test("works without prepared statements and without LISTEN, over two connections", {}, (server) =>
      Effect.gen(function* () {
        const client = clientOf(server.url, { prepare: false, maxConnections: 2 })
        const opened = SqlStore.layer({ notify: false, pollInterval: "50 millis" }).pipe(
          Layer.provideMerge(client),
          Layer.build
        )
        const store = yield* opened
        const other = yield* opened
        yield* startWorker(other, Count, countingHandler().layer)
        assert.strictEqual(yield* Effect.provideContext(roundTrip(7), store), 7)
        const session = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql.unsafe(
            `SELECT (SELECT count(*)::int FROM pg_prepared_statements) AS prepared,
              (SELECT count(*)::int FROM pg_listening_channels()) AS channels`
          )
        )
        for (const context of [store, other]) {
          const [row] = yield* Effect.provideContext(session, context)
          assert.deepStrictEqual(row, { prepared: 0, channels: 0 })
        }
      })
    )
  })
})
