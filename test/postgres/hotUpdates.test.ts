import { randomBytes } from "node:crypto"
import { assert, it } from "@effect/vitest"
import { Array as Arr, Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import type { NewRecord, Outcome } from "../../src/BackendDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { clientLayer, describeWithPostgres, temporarySchema } from "./server.ts"

const recordOf = (id: string, reservedMillis?: number): NewRecord => ({
  id,
  task: "t",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: 60_000,
  retentionMillis: 60_000,
  reservedMillis
})

const messageOf = (id: string) => ({ id, task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" })

const defaults = {
  task: "t",
  leaseMillis: 60_000,
  maxCrashes: 3,
  retentionMillis: 60_000,
  deadLetterRetentionMillis: 60_000
}

/** A history that does not fit into a row. */
const retry: Outcome = { _tag: "Retry", afterMillis: 0, failure: `${randomBytes(3000).toString("base64")}\n` }
const outcome: Outcome = { _tag: "Success", exit: "1", retentionMillis: 60_000 }

// as many as have room on one page, with all their versions
const fusedIds = Arr.map(Arr.range(1, 8), (n) => `fused ${n}`)
const retriedIds = Arr.map(Arr.range(1, 2), (n) => `retried ${n}`)
const plainIds = Arr.map(Arr.range(1, 4), (n) => `plain ${n}`)

/** Runs tasks by the fused operations: two updates of each record. */
const runFused = Effect.fnUntraced(function* ({ backend: { fusion } }: SqlDrivers.Drivers) {
  assert.isDefined(fusion)
  assert.isDefined(fusion.claim)
  yield* fusion.enqueue(Arr.map(fusedIds, (id) => ({ record: recordOf(id), message: messageOf(id) })))
  const claim = { queues: Arr.of("q"), max: 8, leaseMillis: 60_000, worker: "w", startDefaults: [defaults] }
  const claimed = yield* fusion.claim(claim)
  assert(Arr.isReadonlyArrayNonEmpty(claimed))
  yield* fusion.settle(
    Arr.map(claimed, ({ delivery: { handle, id }, run }) => ({
      handle,
      settlement: { id: id!, token: run!.token, outcome }
    }))
  )
})

/** Runs tasks by the operations of the two ports: three updates of each record. */
const runUnfused = Effect.fnUntraced(function* ({ backend, broker }: SqlDrivers.Drivers) {
  yield* backend.create(Arr.map(plainIds, (id) => recordOf(id, 60_000)))
  yield* broker.publish(Arr.map(plainIds, messageOf))
  assert.deepStrictEqual(
    yield* backend.markPublished(Arr.map(plainIds, (id) => ({ id, incarnation: "", generation: 0 }))),
    plainIds.map(() => true)
  )
  const claimed = yield* broker.claim({ queues: ["q"], max: 4, leaseMillis: 60_000, worker: "w" })
  assert(Arr.isReadonlyArrayNonEmpty(claimed))
  yield* backend.start(
    Arr.map(claimed, ({ body, handle, id, queue }) => ({
      ...defaults,
      id: id!,
      incarnation: "",
      generation: 0,
      token: handle,
      worker: "w",
      queue,
      body,
      deliveryMode: "at-least-once"
    }))
  )
  yield* backend.settle(Arr.map(claimed, ({ handle, id }) => ({ id: id!, token: handle, outcome })))
  yield* broker.ack(Arr.map(claimed, ({ handle }) => handle))
})

/** Retries tasks twice by the fused operations: six updates of each record. */
const runRetried = Effect.fnUntraced(function* ({ backend: { fusion } }: SqlDrivers.Drivers) {
  assert.isDefined(fusion?.claim)
  yield* fusion.enqueue(Arr.map(retriedIds, (id) => ({ record: recordOf(id), message: messageOf(id) })))
  const claim = { queues: Arr.of("q"), max: 8, leaseMillis: 60_000, worker: "w", startDefaults: [defaults] }
  for (const next of [retry, retry, outcome]) {
    const claimed = yield* fusion.claim(claim)
    assert(Arr.isReadonlyArrayNonEmpty(claimed))
    assert.strictEqual(claimed.length, retriedIds.length)
    yield* fusion.settle(
      Arr.map(claimed, ({ delivery: { handle, id }, run }) => ({
        handle,
        settlement: { id: id!, token: run!.token, outcome: next }
      }))
    )
  }
})

await describeWithPostgres("postgres: indexes", () => {
  it.live(
    "a mark, a start, a retry and an end write no index of tasks, and no message that is due enters that of delayed ones",
    () =>
      Effect.gen(function* () {
        // the session whose statistics are read
        const layer = clientLayer(yield* temporarySchema(), { maxConnections: 1 })
        const client = Context.get(yield* Layer.build(layer), SqlClient.SqlClient)
        const drivers = yield* Effect.andThen(Migrations.run(), SqlDrivers.make({ notify: false })).pipe(
          Effect.provideService(SqlClient.SqlClient, client)
        )
        yield* runFused(drivers)
        yield* runUnfused(drivers)
        yield* runRetried(drivers)

        const updates = fusedIds.length * 2 + plainIds.length * 3 + retriedIds.length * 6
        const read = client.unsafe<{ readonly updates: string; readonly hot: string }>(
          `SELECT n_tup_upd::text AS updates, n_tup_hot_upd::text AS hot FROM pg_stat_user_tables
        WHERE relid = 'chicory_tasks'::regclass`
        )
        // a session reports what it did after a while
        const [stats] = yield* read.pipe(
          Effect.delay("50 millis"),
          Effect.repeat({ until: ([row]) => Number(row?.updates) >= updates }),
          Effect.timeout("20 seconds")
        )
        assert.deepStrictEqual(stats, { updates: String(updates), hot: String(updates) })

        const [size] = yield* client.unsafe<{ readonly bytes: string }>(
          `SELECT pg_relation_size('chicory_messages_delayed')::text AS bytes`
        )
        // the page that an index has from the beginning
        assert.deepStrictEqual(size, { bytes: "8192" })
      })
  )
})
