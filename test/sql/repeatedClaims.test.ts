/** Claims that are asked for again: their messages are found by the claim's id, and those that are too many are put back. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { ClaimRequest, Envelope } from "../../src/BrokerDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import { record } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { type Asked, spyOn } from "./statementSpy.ts"

interface Tables {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

const makeDrivers = Effect.fnUntraced(function* ({ client, prefix }: Tables) {
  const spy = spyOn(client)
  const drivers = yield* Effect.andThen(
    Migrations.run({ prefix }),
    SqlDrivers.make({ prefix, notify: false })
  ).pipe(Effect.provideService(SqlClient.SqlClient, spy.client))
  return { ...drivers, spy }
})

const envelope = (id: string): Envelope => ({
  id,
  task: "t",
  queue: "q",
  priority: 100,
  delayMillis: 0,
  body: "{}"
})

const newTask = (id: string) => ({
  message: envelope(id),
  record: record(id, { task: "t", retentionMillis: 60_000 })
})

const startDefaults = [
  {
    task: "t",
    leaseMillis: 60_000,
    maxCrashes: 3,
    retentionMillis: 60_000,
    deadLetterRetentionMillis: undefined
  }
]

const request = (claimId: string, max: number, isRetry = false): ClaimRequest => ({
  queues: ["q"],
  max,
  leaseMillis: 60_000,
  worker: "w",
  claimId,
  isRetry
})

type Spy = ReturnType<typeof spyOn>

const OTHERS = 20_000
/** Messages of one insert. */
const PART = 500

/** Inserts claims of other workers in the queue, with leases that end before, with and after those of the test. */
const insertOthers = ({ client, prefix }: Tables) =>
  Effect.forEach(
    Arr.range(1, OTHERS / PART),
    (part) => {
      const rows = Arr.map(Arr.range(1, PART), (n) => {
        const wakeAt = Date.now() + 1000 + ((n * 7919) % 100_000)
        const seq = 1_000_000 + part * PART + n
        return `(${seq}, 'q', 100, 2, 1, ${wakeAt}, 'other.${n % 97}:${seq}', 'id ${seq}', 't', 0, '{}')`
      })
      return client.unsafe(`INSERT INTO ${prefix}_messages
        (seq, queue, priority, state, due_at, wake_at, claim, id, task, generation, body)
        ${client.onDialectOrElse({ pg: () => "OVERRIDING SYSTEM VALUE", orElse: () => "" })}
        VALUES ${rows.join(", ")}`)
    },
    { discard: true }
  )

/** Runs an effect once, before the first statement that has a text. */
const runBefore = ({ hook }: Spy, text: string, effect: Effect.Effect<unknown, unknown>) =>
  Effect.sync(() => {
    hook.before = (statement) => {
      if (!statement.includes(text)) return Effect.void
      hook.before = () => Effect.void
      return effect
    }
  })

/** Returns whether a statement reads few messages, for a database. */
type ReadsFew = (tables: Tables, statement: Asked) => Effect.Effect<boolean, unknown>

const suite = (make: Effect.Effect<Tables, unknown, Scope.Scope>, readsFew: ReadsFew): void => {
  it.live("a repeated claim finds its messages beside 20,000 claims of others in its queue", () =>
    Effect.gen(function* () {
      const tables = yield* make
      const { backend, broker, spy } = yield* makeDrivers(tables)
      const claims = [
        broker.claim,
        ...(backend.fusion?.claim === undefined
          ? []
          : [
              (claim: ClaimRequest) =>
                Effect.map(backend.fusion!.claim!({ ...claim, startDefaults: [] }), (claimed) =>
                  claimed.map(({ delivery }) => delivery)
                )
            ])
      ]
      yield* insertOthers(tables)
      const { client, prefix } = tables
      const analyze = client.onDialectOrElse({
        pg: () => `ANALYZE ${prefix}_messages`,
        mysql: () => `ANALYZE TABLE ${prefix}_messages`,
        orElse: () => "ANALYZE"
      })
      for (const isAnalyzed of [false, true]) {
        if (isAnalyzed) yield* client.unsafe(analyze)
        for (const [n, claim] of claims.entries()) {
          const name = `mine.${n}.${isAnalyzed}`
          yield* broker.publish([envelope("a"), envelope("b"), envelope("c")])
          const first = yield* claim(request(name, 2))
          spy.asked.clear()
          const again = yield* claim(request(name, 2, true))
          assert.deepStrictEqual(
            again.map(({ handle }) => handle),
            first.map(({ handle }) => handle)
          )
          const asked = [...spy.asked.values()].filter(({ params }) => params.includes(`${name}:`))
          assert.strictEqual(asked.length, 1)
          assert.isTrue(yield* readsFew(tables, asked[0]!), asked[0]!.text)
          yield* broker.ack(again.map(({ handle }) => handle) as never)
          yield* broker.purge("q", 10)
        }
      }
    })
  )

  it.live(
    "a repeated claim with a smaller maximum puts the last ones back, in the order in which they were due",
    () =>
      Effect.gen(function* () {
        const { broker } = yield* makeDrivers(yield* make)
        yield* broker.publish(Arr.map(Arr.make("a", "b", "c"), (id) => envelope(id)))
        const first = yield* broker.claim(request("one", 3))
        yield* broker.publish([envelope("later")])
        const again = yield* broker.claim(request("one", 1, true))
        assert.deepStrictEqual(again, [{ ...first[0]!, ageMillis: again[0]!.ageMillis }])
        const rest = yield* broker.claim(request("two", 10))
        assert.deepStrictEqual(
          rest.map(({ id }) => id),
          ["b", "c", "later"]
        )
        assert.deepStrictEqual(yield* broker.ack([first[1]!.handle, rest[0]!.handle]), [false, true])
      })
  )

  it.live("a repeated claim of started tasks returns the same runs", () =>
    Effect.gen(function* () {
      const { backend } = yield* makeDrivers(yield* make)
      const { claim, enqueue } = backend.fusion!
      yield* enqueue(Arr.map(Arr.make("a", "b", "c"), newTask))
      const first = yield* claim!({ ...request("one", 2), startDefaults })
      const again = yield* claim!({ ...request("one", 3, true), startDefaults })
      assert.deepStrictEqual(
        again.map(({ run }) => run),
        [
          ...first.map(({ run }) => run),
          { token: again[2]?.delivery.handle, started: again[2]?.run?.started }
        ]
      )
      assert.deepStrictEqual(
        again.map(({ delivery, run }) => [delivery.id, run?.started._tag]),
        [
          ["a", "Run"],
          ["b", "Run"],
          ["c", "Run"]
        ]
      )
      const attempts = (yield* backend.read(["a", "b", "c"])).map((record) => record?.attempt)
      assert.deepStrictEqual(attempts, [1, 1, 1])
    })
  )

  it.live("a repeated claim undoes the starts of the tasks that it puts back", () =>
    Effect.gen(function* () {
      const { backend, broker } = yield* makeDrivers(yield* make)
      const { claim, enqueue } = backend.fusion!
      yield* enqueue(Arr.map(Arr.make("a", "b", "c"), newTask))
      const first = yield* claim!({ ...request("one", 3), startDefaults })
      assert.deepStrictEqual(
        first.map(({ run }) => run?.started._tag),
        ["Run", "Run", "Run"]
      )
      yield* backend.cancel(["c"])
      const again = yield* claim!({ ...request("one", 1, true), startDefaults })
      assert.deepStrictEqual(again, [{ ...first[0]!, delivery: { ...again[0]!.delivery } }])
      const states = (yield* backend.read(["a", "b", "c"])).map((record) => [record?.state, record?.attempt])
      assert.deepStrictEqual(states, [
        ["STARTED", 1],
        ["PENDING", 0],
        ["FAILURE", 1]
      ])
      const [counts] = yield* broker.counts(["q"])
      assert.deepStrictEqual([counts?.ready, counts?.claimed], [2, 1])
      const other = yield* claim!({ ...request("two", 3), startDefaults })
      assert.deepStrictEqual(
        other.map(({ delivery, run }) => [delivery.id, run?.started._tag === "Run"]),
        [
          ["b", true],
          ["c", false]
        ]
      )
    })
  )
}

await Postgres.describeWithPostgres("postgres: repeated claims", () => {
  const make = Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" }))

  suite(make, ({ client }, { params, text }) =>
    Effect.map(
      client
        .unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN (ANALYZE, BUFFERS) ${text}`, params)
        .pipe(client.withTransaction),
      (rows) => {
        const [, hit = "0"] = /hit=(\d+)/.exec(rows.map((row) => row["QUERY PLAN"]).join("\n")) ?? []
        return Number(hit) < 100
      }
    )
  )

  it.live("a repeated claim undoes the starts of what an attempt before it takes while it runs", () =>
    Effect.gen(function* () {
      const { backend, broker, spy } = yield* makeDrivers(yield* make)
      const { claim, enqueue } = backend.fusion!
      yield* enqueue(Arr.map(Arr.make("a", "b", "c"), newTask))
      yield* runBefore(spy, "claim_1", claim!({ ...request("one", 2), startDefaults }))
      const claimed = yield* claim!({ ...request("one", 2, true), startDefaults })
      assert.deepStrictEqual(
        claimed.map(({ delivery, run }) => [delivery.id, run?.started._tag]),
        [["c", "Run"]]
      )
      const [counts] = yield* broker.counts(["q"])
      assert.deepStrictEqual([counts?.ready, counts?.claimed], [2, 1])
      const states = (yield* backend.read(["a", "b", "c"])).map((record) => record?.state)
      assert.deepStrictEqual(states, ["PENDING", "PENDING", "STARTED"])
    })
  )
})

await Mariadb.describeWithMariadb("mariadb: repeated claims", () =>
  suite(Mariadb.temporaryTables, ({ client }, { params, text }) =>
    Effect.map(
      client.unsafe<{ readonly key: string; readonly rows: number }>(`EXPLAIN ${text}`, params),
      ([row]) => row!.key === "messages_claim" && row!.rows < 10
    )
  )
)

describe("sqlite: repeated claims", () => {
  const make = Effect.gen(function* () {
    return { client: yield* SqliteClient.make({ filename: yield* temporaryFile }), prefix: "chicory" }
  })
  suite(make, ({ client }, { params, text }) =>
    Effect.map(client.unsafe<{ readonly detail: string }>(`EXPLAIN QUERY PLAN ${text}`, params), ([row]) =>
      row!.detail.includes("USING INDEX chicory_messages_claim (claim>? AND claim<?)")
    )
  )
})
