/** `Backend` and `Broker`: the library's layers, and custom drivers. */
import { AsyncResult, Backend, Broker, MemoryStore, type TaskContext, type TaskState } from "chicory"
import type {
  BackendDriver,
  CancelAnswer,
  Created,
  DeadLetter,
  Renewed,
  Settled,
  Started,
  TaskRecord,
  BrokerDriver,
  Delivery
} from "chicory/driver"
import { SqlBackend, SqlBroker, SqlStore } from "chicory/sql"
import { SqliteBackend, SqliteBroker, SqliteClient, SqliteStore } from "chicory/sqlite"
import { Array as Arr, Context, Data, Duration, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { Divide } from "./subjects.ts"
import { expectType, fits, type Services, type Store, type Success, typeOf } from "./support.ts"

// in this process
expectType(Backend.layerMemory).is<Layer.Layer<Backend.Backend>>(true)
expectType(MemoryStore.layer()).is<Layer.Layer<Store>>(true)
expectType(MemoryStore.layer({ retention: "1 hour", lease: "1 minute" })).is<Layer.Layer<Store>>(true)
expectType(Backend.layerNotConfigured).is<Layer.Layer<Backend.Backend>>(true)
expectType(Broker.layerMemory).is<Layer.Layer<Broker.Broker>>(true)
expectType(Backend.makeDriverMemory).is<Effect.Effect<BackendDriver<never>>>(true)
expectType(Broker.makeDriverMemory).is<Effect.Effect<BrokerDriver<never>>>(true)

// in a SQLite file: a file that cannot be opened is a typed error
expectType(SqliteStore.layer({ filename: "tasks.db" })).is<Layer.Layer<Store, Backend.BackendError>>(true)
expectType(
  SqliteBackend.layer({ filename: "tasks.db", prefix: "app", synchronous: "FULL", busyTimeout: "1 second" })
).is<Layer.Layer<Backend.Backend, Backend.BackendError>>(true)
expectType(SqliteBroker.layer({ filename: ":memory:" })).is<Layer.Layer<Broker.Broker, Broker.BrokerError>>(
  true
)
expectType(SqliteClient.layer({ filename: "app.db" })).is<
  Layer.Layer<SqlClient.SqlClient, SqlError.SqlError>
>(true)
expectType(SqliteClient.make({ filename: "app.db" })).is<
  Effect.Effect<SqliteClient.SqliteClient, SqlError.SqlError, Scope.Scope>
>(true)
SqliteStore.layer({ filename: "tasks.db", retention: "1 hour", lease: "1 minute" })
SqliteBackend.layer({ filename: "results.db", retention: Duration.infinity })
// @ts-expect-error a lease is an option of the broker
SqliteBackend.layer({ filename: "results.db", lease: "1 minute" })
// @ts-expect-error a retention is an option of the backend
SqliteBroker.layer({ filename: "tasks.db", retention: "1 minute" })
// @ts-expect-error which file?
SqliteStore.layer({})
// @ts-expect-error a misspelt option
SqliteStore.layer({ filename: "tasks.db", prefx: "app" })

// in a SQL database: its client is the program's
expectType(SqlStore.layer()).is<Layer.Layer<Store, Backend.BackendError, SqlClient.SqlClient>>(true)
expectType(
  SqlStore.layerStorage({ prefix: "app", notify: false, retention: "1 hour", lease: "1 minute" })
).is<Layer.Layer<Store, Backend.BackendError, SqlClient.SqlClient>>(true)
expectType(SqlBackend.layer({ callTimeout: "1 second" })).is<
  Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient>
>(true)
expectType(SqlBroker.layerStorage({ pollInterval: "1 second" })).is<
  Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient>
>(true)
expectType(SqlStore.migrations("postgres", { prefix: "app" })).is<string>(true)
// @ts-expect-error a database without a dialect
SqlStore.migrations("oracle")
// @ts-expect-error a misspelt option
SqlStore.layer({ notfy: false })

// `transact` keeps the value and the errors of the effect, and belongs into a handler
declare const booking: Effect.Effect<number, KvError, KvConfig>
expectType(SqlStore.transact(booking)).is<
  Effect.Effect<
    number,
    KvError | SqlError.SqlError | Backend.BackendError | Backend.BackendNotConfigured,
    KvConfig | SqlClient.SqlClient | TaskContext.TaskContext
  >
>(true)

// queues
expectType(Broker.counts(["default", "slow"])).is<
  Effect.Effect<ReadonlyArray<Broker.QueueCounts>, Broker.BrokerError, Broker.Broker>
>(true)
expectType(Broker.purge("default")).is<
  Effect.Effect<
    number,
    Broker.BrokerError | Backend.BackendError | Backend.BackendNotConfigured,
    Broker.Broker
  >
>(true)
typeOf<keyof Broker.QueueCounts>().is<
  "ready" | "delayed" | "claimed" | "setAside" | "parked" | "oldestMillis"
>(true)
// @ts-expect-error of no queue there is nothing to count
Broker.counts([])

// a custom driver: a key-value store with its own error
class KvError extends Data.TaggedError("KvError")<{ readonly code: number }> {}
class KvConfig extends Context.Service<KvConfig, { readonly url: string }>()("kv/Config") {}
interface Kv {
  readonly mget: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string | null>, KvError>
  readonly run: (script: string, keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<number>, KvError>
}
declare const connect: Effect.Effect<Kv, KvError, Scope.Scope | KvConfig>
declare const parse: (text: string) => TaskRecord

const read = (kv: Kv, ids: ReadonlyArray<string>) =>
  Effect.map(
    kv.mget(ids),
    Arr.map((text) => (text === null ? undefined : parse(text)))
  )

const makeBackendDriver = Effect.map(connect, (kv): BackendDriver<KvError> => ({
  name: "kv",
  capabilities: { hints: true },
  isPermanent: (error) => error instanceof KvError && error.code === 401,
  create: (records) =>
    Effect.map(
      kv.run(
        "create",
        Arr.map(records, ({ id }) => id)
      ),
      Arr.map((known, i): Created =>
        known === 0
          ? { _tag: "Created" }
          : {
              _tag: "Existing",
              id: records[i]?.key ?? "",
              incarnation: "",
              generation: 0,
              same: true,
              published: known === 2
            }
      )
    ),
  markPublished: (records) =>
    Effect.map(
      kv.run(
        "published",
        Arr.map(records, ({ generation, id, incarnation }) => `${id} ${incarnation} ${generation}`)
      ),
      Arr.map((known) => known !== 0)
    ),
  start: (starts) =>
    Effect.map(
      kv.run(
        "start",
        Arr.map(starts, ({ id, token }) => `${id} ${token}`)
      ),
      Arr.map((fence): Started => {
        if (fence === 0) return { _tag: "Drop" }
        return fence < 0
          ? { _tag: "Busy", millis: -fence }
          : { _tag: "Run", fence, attempt: 1, retries: 0, crashes: 0 }
      })
    ),
  renew: (renewals) => Effect.succeed(Arr.map(renewals, (): Renewed => "Held")),
  settle: (settlements) =>
    Effect.map(
      kv.run(
        "settle",
        Arr.map(settlements, ({ id, outcome }) => (outcome._tag === "Success" ? outcome.exit : id))
      ),
      Arr.map((stored): Settled => (stored === 1 ? "Stored" : "Lost"))
    ),
  parkMessage: () => Effect.void,
  read: (ids) => read(kv, ids),
  subscribe: (ids) => read(kv, ids),
  unsubscribe: () => Effect.void,
  hints: Stream.make(["0190"], "resync" as const),
  cancel: (ids) => Effect.succeed(Arr.map(ids, (): CancelAnswer => "Requested")),
  withdraw: () => Effect.void,
  forget: () => Effect.void,
  reopen: (ids) => Effect.succeed(Arr.map(ids, () => undefined)),
  getDeadLetters: (ids) => Effect.succeed(Arr.map(ids, () => undefined)),
  listDeadLetters: ({ limit }) => Effect.succeed(Arr.empty<DeadLetter>().slice(0, limit)),
  listDeadLetterIds: ({ limit }) => Effect.succeed(Arr.empty<DeadLetter>().slice(0, limit)),
  countDeadLetters: () => Effect.succeed(0),
  removeDeadLetters: (ids) => Effect.succeed(Arr.map(ids, () => false)),
  heartbeat: ({ id }, ttlMillis) => Effect.asVoid(kv.run("heartbeat", [id, String(ttlMillis)])),
  unregisterWorker: () => Effect.void,
  workers: Effect.succeed([]),
  sweep: () => Effect.succeed({ handled: 0, lost: [] })
}))
const KvBackend = Backend.layer(makeBackendDriver, { sweepInterval: "1 second" })
expectType(KvBackend).is<Layer.Layer<Backend.Backend, KvError, KvConfig>>(true)
expectType(Layer.effect(Backend.Backend, Effect.flatMap(makeBackendDriver, Backend.make))).is<
  typeof KvBackend
>(true)
declare const backendDriver: BackendDriver<KvError>
expectType(Backend.make(backendDriver)).is<Effect.Effect<Backend.Backend["Service"], never, Scope.Scope>>(
  true
)
fits<BackendDriver>(backendDriver)
// @ts-expect-error half a driver
Backend.make({ name: "kv", capabilities: { hints: false } })

const makeBrokerDriver = Effect.map(connect, (kv): BrokerDriver<KvError> => ({
  name: "kv",
  capabilities: {
    priorities: 1,
    lease: "store",
    maxDelayMillis: 60_000
  },
  publish: (messages) =>
    Effect.asVoid(
      kv.run(
        "publish",
        Arr.map(messages, ({ body }) => body)
      )
    ),
  claim: ({ max, queues }) =>
    Effect.map(kv.mget(queues), (bodies): ReadonlyArray<Delivery> =>
      Arr.take(bodies, max).map((body, i) => ({
        handle: String(i),
        id: undefined,
        task: undefined,
        queue: "default",
        ageMillis: 0,
        body: body ?? new Uint8Array()
      }))
    ),
  ready: () => Stream.never,
  renew: (handles) => Effect.succeed(Arr.map(handles, () => true)),
  lost: Stream.fail(new KvError({ code: 1 })),
  ack: (handles) => Effect.succeed(Arr.map(handles, () => true)),
  release: (releases) =>
    Effect.asVoid(
      kv.run(
        "release",
        Arr.map(releases, ({ handle }) => handle)
      )
    ),
  reject: () => Effect.void,
  counts: (queues) => Effect.succeed(Arr.map(queues, () => ({ ready: 0, delayed: 0, claimed: 0 }))),
  purge: (queue, limit) => Effect.as(kv.run("purge", [queue, String(limit)]), [])
}))
const KvBroker = Broker.layer(makeBrokerDriver)
expectType(KvBroker).is<Layer.Layer<Broker.Broker, KvError, KvConfig>>(true)
expectType(Layer.effect(Broker.Broker, Effect.flatMap(makeBrokerDriver, Broker.make))).is<typeof KvBroker>(
  true
)
declare const brokerDriver: BrokerDriver<KvError>
expectType(Broker.make(brokerDriver)).is<Effect.Effect<Broker.Broker["Service"], never, Scope.Scope>>(true)
// @ts-expect-error it does not claim
Broker.make({ ...brokerDriver, claim: undefined })

// any broker goes with any backend
expectType(Layer.merge(KvBackend, Broker.layerMemory)).is<Layer.Layer<Store, KvError, KvConfig>>(true)

// a scripted driver under TestClock
const scripted = (reads: ReadonlyArray<TaskRecord | undefined>) =>
  Backend.layer(
    Effect.map(Backend.makeDriverMemory, (memory) => {
      let turn = 0
      return {
        ...memory,
        read: (ids) => Effect.sync(() => Arr.map(ids, () => reads[Math.min(turn++, reads.length - 1)]))
      } satisfies BackendDriver
    })
  )
declare const pending: TaskRecord
const test = Effect.gen(function* () {
  const waiting = AsyncResult.get(Divide.result("0190"), { timeout: "1 second" })
  const fiber = yield* Effect.forkChild(Effect.flip(waiting))
  yield* TestClock.adjust("1 second")
  const error = yield* Fiber.join(fiber)
  return error._tag === "TimeoutError" ? error.state : yield* Effect.die(error)
}).pipe(Effect.provide(scripted([undefined, pending])), Effect.provide(TestClock.layer()))
typeOf<Success<typeof test>>().is<TaskState>(true)
typeOf<Services<typeof test>>().is<never>(true)
