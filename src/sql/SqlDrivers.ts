/**
 * Makes the drivers of both ports over the tables of one store.
 */
import { Duration, Effect, FiberSet, Latch, type Scope } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import type { BackendDriver } from "../BackendDriver.ts"
import type { BrokerDriver, ClaimRequest } from "../BrokerDriver.ts"
import * as callTimeout from "../internal/driver/callTimeout.ts"
import { outagesOf } from "../internal/driver/Outages.ts"
import { positiveDuration } from "../internal/options.ts"
import { makeCreate } from "./backend/create.ts"
import { makeSettle } from "./backend/settle.ts"
import * as SqlBackendDriver from "./backend/SqlBackendDriver.ts"
import { makeStart } from "./backend/start.ts"
import * as TaskRows from "./backend/TaskRows.ts"
import { makeQueueStatus } from "./broker/queueStatus.ts"
import * as SqlBrokerDriver from "./broker/SqlBrokerDriver.ts"
import * as Database from "./Database.ts"
import { makeComplete } from "./fused/complete.ts"
import * as SqlFusion from "./fused/SqlFusion.ts"
import * as ChangeTableNotifier from "./notify/ChangeTableNotifier.ts"
import { canListen, canWatchWrites } from "./notify/clientCapabilities.ts"
import * as PostgresNotifications from "./notify/PostgresNotifications.ts"
import * as ReadySignal from "./notify/ReadySignal.ts"
import * as TableNotifications from "./notify/TableNotifications.ts"
import * as TaskNotifier from "./notify/TaskNotifier.ts"
import * as TopicTaskNotifier from "./notify/TopicTaskNotifier.ts"
import * as WorkerNotifier from "./notify/WorkerNotifier.ts"
import * as ReadOnlySessions from "./readOnlySessions.ts"
import * as ReservedConnection from "./ReservedConnection.ts"
import * as Row from "./Row.ts"

/** How the processes of a store notify each other, and how long a call may take. */
export interface Options extends Database.Options {
  /**
   * Whether waiters and workers are notified. With `false` waiters poll every 100 millis, or at the `pollInterval` of `get`.
   *
   * On PostgreSQL one connection of the pool is held to listen. Default `true` if the client can listen, as the one of
   * `@effect/sql-pg` can with a pool of at least three connections. It has to be `false` with PgBouncer in transaction mode,
   * which breaks LISTEN.
   *
   * On MariaDB a process that waits reads a table of notifications at short intervals. Default `true`.
   */
  readonly notify?: boolean | undefined
  /** How often a worker polls for messages where it is not notified: with `notify: false`, or without LISTEN. Default 250 millis. */
  readonly pollInterval?: Duration.Input | undefined
  /**
   * How long a call may take before it fails, with its effect unknown; it is retried where that helps. A call that joins
   * a transaction of the caller is not retried, and ends once its statement has been cancelled. Default 10 seconds.
   */
  readonly callTimeout?: Duration.Input | undefined
}

/** The two drivers. Each may be used without the other. */
export interface Drivers {
  readonly backend: BackendDriver<Database.StoreError | Database.NoTransaction>
  readonly broker: BrokerDriver<Database.StoreError>
}

interface Notifiers {
  readonly notifier: TaskNotifier.TaskNotifier
  readonly workerNotifier: WorkerNotifier.WorkerNotifier
  /** Called with each claim and start: this process has a worker. */
  readonly onWork?: (() => void) | undefined
}

/** Chooses how processes notify each other, by what the database and the client can do. */
const makeNotifiers = (
  db: Database.Database,
  { notify, pollInterval }: Options
): Effect.Effect<Notifiers, Database.StoreError, Scope.Scope> => {
  const {
    client,
    dialect: { notifications }
  } = db
  const source = crypto.randomUUID()
  if (notifications === "change-table" && canWatchWrites(client)) {
    return Effect.succeed({
      notifier: ChangeTableNotifier.make(db, client, source),
      workerNotifier: WorkerNotifier.onWrite(client)
    })
  }
  if (notifications === "listen-notify" && notify !== false && canListen(client)) {
    return Effect.map(PostgresNotifications.make(db, client, source), (made) => ({
      notifier: TopicTaskNotifier.make(made),
      workerNotifier: WorkerNotifier.byNotification(made)
    }))
  }
  const millis = Duration.toMillis(positiveDuration("pollInterval", pollInterval ?? "250 millis"))
  if (notifications === "notification-table" && notify !== false) {
    return Effect.gen(function* () {
      const made = yield* TableNotifications.make(db, source)
      const fork = yield* FiberSet.makeRuntime()
      const working = Latch.makeUnsafe(false)
      return {
        notifier: TopicTaskNotifier.make(made, working.await),
        workerNotifier: WorkerNotifier.whileIdle(made, millis, fork),
        onWork: () => working.openUnsafe()
      }
    })
  }
  return Effect.succeed({ notifier: TaskNotifier.none, workerNotifier: WorkerNotifier.every(millis) })
}

const toTimeoutError = (cause: Error): SqlError.SqlError =>
  new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause, message: cause.message }) })

/**
 * Bounds calls by `callTimeout`. A call in a transaction of the caller waits for the end of its statement, since the
 * connection is the caller's.
 */
const withCallTimeout = Effect.fnUntraced(function* (
  db: Database.Database,
  options: Options
): Effect.fn.Return<Database.Database, never, Scope.Scope> {
  const timeout = positiveDuration("callTimeout", options.callTimeout ?? "10 seconds")
  const limit = yield* callTimeout.make(timeout, toTimeoutError)
  const limitJoined = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.timeoutOrElse(effect, {
      duration: timeout,
      orElse: () => Effect.fail(toTimeoutError(callTimeout.timedOut(timeout)))
    })
  const inCallerTransaction: Database.Database["inCallerTransaction"] = (effect) =>
    Effect.withFiber(({ context }) =>
      db.transactionOf(context) === undefined ? limit(effect) : limitJoined(effect)
    )
  return {
    ...db,
    // a call that has a connection and no transaction is part of one that is bounded already
    outsideTransaction: (effect) =>
      Effect.withFiber(({ context }) =>
        db.hasConnection(context) && db.transactionOf(context) === undefined
          ? effect
          : limit(db.outsideTransaction(effect))
      ),
    inCallerTransaction,
    readsInCallerTransaction: inCallerTransaction
  }
})

/**
 * Lets calls have the reserved connection, but for writes of producers: these may wait for a transaction of a handler, and
 * leases must not wait for them.
 */
const withReservedConnection = (
  db: Database.Database,
  { reads, withConnection }: ReservedConnection.ReservedConnection
): Database.Database => ({
  ...db,
  outsideTransaction: (effect) => db.outsideTransaction(withConnection(effect)),
  readsInCallerTransaction: (effect) => db.readsInCallerTransaction(reads(effect))
})

/** Opens the tables, and reads the limit of the database on statements. */
const openDatabase = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Database.Database, Database.StoreError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const { statementLimit } = db.dialect
  if (statementLimit === undefined) return db
  const read = db.reader<{ readonly bytes: number }>("(limit)", { bytes: Row.integer })
  const [limit] = yield* Effect.flatMap(db.run(statementLimit), read)
  return yield* Database.make(options, limit?.bytes)
})

const makePorts = (
  store: object,
  backend: SqlBackendDriver.BackendParts,
  broker: SqlBrokerDriver.BrokerParts
): Drivers => {
  const { name } = backend.db.dialect
  return {
    backend: {
      ...SqlBackendDriver.make(backend, { name }),
      complete: makeComplete(backend, broker),
      fusion: SqlFusion.make(backend, broker, store)
    },
    broker: SqlBrokerDriver.make(broker, { name, store })
  }
}

/** Reserves a connection when a worker claims or starts, and takes note of that and of what it claims. */
const reserving = (
  { outsideTransaction }: Database.Database,
  { claims, reserve }: ReservedConnection.ReservedConnection,
  { onClaim, onWork }: { readonly onClaim: ReadySignal.ReadySignal["onClaim"]; readonly onWork: () => void },
  { backend, broker }: Drivers
): Drivers => {
  const claiming =
    <In extends ClaimRequest, A, E>(claim: (request: In) => Effect.Effect<ReadonlyArray<A>, E>) =>
    (request: In): Effect.Effect<ReadonlyArray<A>, E | SqlError.SqlError> => {
      onWork()
      return Effect.map(outsideTransaction(claims(claim(request))), (claimed) => {
        const { max, queues } = request
        onClaim({ queues, claimed: claimed.length, isFull: claimed.length >= max })
        return claimed
      })
    }
  const { fusion, start } = backend
  return {
    backend: {
      ...backend,
      start: (starts) => {
        reserve()
        onWork()
        return start(starts)
      },
      fusion: fusion && { ...fusion, claim: fusion.claim && claiming(fusion.claim) }
    },
    broker: { ...broker, claim: claiming(broker.claim) }
  }
}

/** Makes the drivers, over tables that `Migrations.run` brought up to date, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Drivers, Database.StoreError, SqlClient.SqlClient | Scope.Scope> {
  const opened = yield* openDatabase(options)
  const reserved = yield* ReservedConnection.make(opened)
  const limited = yield* withCallTimeout(opened, options)
  const refusing = yield* ReadOnlySessions.endAfterRefusal(limited, reserved.renew)
  const db = withReservedConnection(refusing, reserved)
  const { notifier, onWork = () => {}, workerNotifier } = yield* makeNotifiers(db, options)
  const taskRows = TaskRows.make(db)
  const queueStatus = makeQueueStatus(db)
  const backend: SqlBackendDriver.BackendParts = {
    db,
    notifier,
    taskRows,
    creating: makeCreate(db, taskRows),
    start: makeStart(db, taskRows),
    settle: makeSettle(db, taskRows)
  }
  const store = {}
  const broker: SqlBrokerDriver.BrokerParts = {
    db,
    outages: outagesOf(store, db.dialect.name),
    messages: SqlBrokerDriver.makeMessageOperations(db),
    queueStatus,
    readySignal: ReadySignal.make(queueStatus, workerNotifier)
  }
  const { onClaim } = broker.readySignal
  return reserving(refusing, reserved, { onClaim, onWork }, makePorts(store, backend, broker))
})
