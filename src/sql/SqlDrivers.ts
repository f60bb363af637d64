/**
 * Both ports over the tables of one store.
 */
import { Duration, Effect, type Scope } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import type { BackendDriver } from "../BackendDriver.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as CallLimit from "../internal/driver/callTimeout.ts"
import { positiveDuration } from "../internal/options.ts"
import * as Enqueuing from "./backend/create.ts"
import * as Settling from "./backend/settle.ts"
import * as SqlBackendDriver from "./backend/SqlBackendDriver.ts"
import * as TaskRows from "./backend/TaskRows.ts"
import * as Messages from "./broker/Messages.ts"
import * as SqlBrokerDriver from "./broker/SqlBrokerDriver.ts"
import * as Database from "./Database.ts"
import * as SqlFusion from "./fused/SqlFusion.ts"
import * as ChangeTableNotifier from "./notify/ChangeTableNotifier.ts"
import { canListen, canWatchWrites } from "./notify/clientCapabilities.ts"
import * as ListenNotifyTaskNotifier from "./notify/ListenNotifyTaskNotifier.ts"
import * as PostgresNotifications from "./notify/PostgresNotifications.ts"
import * as ReadySignal from "./notify/ReadySignal.ts"
import { type TaskNotifier, silent } from "./notify/TaskNotifier.ts"
import * as WorkerNotifier from "./notify/WorkerNotifier.ts"

/** How processes of the store learn of each other. */
export interface Options extends Database.Options {
  /**
   * Whether PostgreSQL notifies waiters and workers, over one connection of the pool that is held for it. Default
   * `true`, where the client can listen, as the one of `@effect/sql-pg` does. With PgBouncer in transaction mode, which
   * breaks LISTEN, it has to be `false`: who waits reads every 100 millis, or as `pollInterval` of `get` says.
   */
  readonly notify?: boolean | undefined
  /** How often a worker looks for messages where nothing wakes it: without notifications, and on MariaDB. Default 250 millis. */
  readonly pollInterval?: Duration.Input | undefined
  /**
   * How long a call may take before it fails, and is tried again where that helps; what became of it is unknown then.
   * It is not for what joins a transaction of yours, nor for SQLite. Default 10 seconds.
   */
  readonly callTimeout?: Duration.Input | undefined
}

/** The two drivers. Either may be used without the other. */
export interface Drivers {
  readonly backend: BackendDriver<Database.StoreError | Database.NoTransaction>
  readonly broker: BrokerDriver<Database.StoreError>
}

/** The ways to other processes. */
interface News {
  readonly hints: boolean
  readonly changes: TaskNotifier
  readonly wake: WorkerNotifier.WorkerNotifier
}

const makeNews = (
  db: Database.Database,
  { notify, pollInterval }: Options
): Effect.Effect<News, Database.StoreError, Scope.Scope> => {
  const { client, dialect } = db
  const source = crypto.randomUUID()
  if (dialect.name === "sqlite" && canWatchWrites(client)) {
    return Effect.succeed({
      hints: true,
      changes: ChangeTableNotifier.make(db, client, source),
      wake: WorkerNotifier.onWrite(client)
    })
  }
  if (dialect.name === "postgres" && notify !== false && canListen(client)) {
    return Effect.map(PostgresNotifications.make(db, client, source), (notifications) => ({
      hints: true,
      changes: ListenNotifyTaskNotifier.make(notifications),
      wake: WorkerNotifier.byNotification(notifications)
    }))
  }
  const millis = Duration.toMillis(positiveDuration("pollInterval", pollInterval ?? "250 millis"))
  return Effect.succeed({ hints: false, changes: silent, wake: WorkerNotifier.every(millis) })
}

const toError = (cause: Error): SqlError.SqlError =>
  new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause, message: cause.message }) })

/** A server may fall silent; a file does not. */
const bounded = (
  db: Database.Database,
  { callTimeout }: Options
): Effect.Effect<Database.Database, never, Scope.Scope> => {
  const timeout = positiveDuration("callTimeout", callTimeout ?? "10 seconds")
  return db.dialect.name === "sqlite"
    ? Effect.succeed(db)
    : Effect.map(CallLimit.make(timeout, toError), (limit) => ({
        ...db,
        outsideTransaction: (effect) => limit(db.outsideTransaction(effect)),
        inCallerTransaction: (effect) =>
          Effect.withFiber(({ context }) =>
            db.transactionOf(context) === undefined ? limit(effect) : effect
          )
      }))
}

/** Over tables that `Migrations.run` brought up to date. They live as long as the scope. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Drivers, Database.StoreError, SqlClient.SqlClient | Scope.Scope> {
  const db = yield* bounded(yield* Database.make(options), options)
  const { changes, hints, wake } = yield* makeNews(db, options)
  const records = TaskRows.make(db)
  const messages = Messages.make(db)
  const backend: SqlBackendDriver.BackendParts = {
    db,
    hints,
    changes,
    records,
    enqueuing: Enqueuing.make(db, records),
    settle: Settling.make(db, records)
  }
  const broker: SqlBrokerDriver.BrokerParts = { db, messages, readiness: ReadySignal.make(messages, wake) }
  const store = {}
  const named = { name: db.dialect.name, store }
  return {
    backend: {
      ...SqlBackendDriver.make(backend, named),
      complete: SqlFusion.makeComplete(backend, broker),
      fusion: SqlFusion.make(backend, broker, store)
    },
    broker: SqlBrokerDriver.make(broker, named)
  }
})
