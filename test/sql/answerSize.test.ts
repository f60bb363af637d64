/** The size of answers inside of the databases: what a statement returns, and how many statements a call takes. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Latch, type Scope, Stream } from "effect"
import { SqlClient } from "effect/sql"
import type { Envelope } from "../../src/BrokerDriver.ts"
import { maxReplySize } from "../../src/internal/defaults.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import { record, startRequest } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { type Answered, spyOn } from "./statementSpy.ts"

interface Tables {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

/** Makes drivers whose statements are recorded. */
const makeDrivers = Effect.fnUntraced(function* ({ client, prefix }: Tables) {
  const { answered: sent, client: recorded, hook } = spyOn(client)
  const drivers = yield* Effect.andThen(
    Migrations.run({ prefix }),
    SqlDrivers.make({ prefix, notify: false })
  ).pipe(Effect.provideService(SqlClient.SqlClient, recorded))
  sent.length = 0
  return { drivers, sent, hook }
})

const textOf = (size: number): string => JSON.stringify("x".repeat(size))

const LARGE = 900_000
/** What a statement returns beside large texts. */
const SLACK = 64 * 1024

/** Makes a task end with a result of that size. */
const finish = ({ backend }: SqlDrivers.Drivers, id: string, size: number) =>
  Effect.gen(function* () {
    yield* backend.create([record(id)])
    yield* backend.start([startRequest(id, id)])
    const outcome = { _tag: "Success", exit: textOf(size), retentionMillis: 60_000 } as const
    yield* backend.settle([{ id, token: id, outcome }])
  })

const envelope = (id: string, size: number, queue = "q"): Envelope => ({
  id,
  task: "t",
  queue,
  priority: 100,
  delayMillis: 0,
  body: textOf(size)
})

const expectBounded = (sent: ReadonlyArray<Answered>): void => {
  for (const { returned, text } of sent) assert.isAtMost(returned, maxReplySize + SLACK, text)
}

const readSuite = (make: Effect.Effect<Tables, unknown, Scope.Scope>): void => {
  describe("reads", () => {
    it.live("one statement reads 256 records of a usual size", () =>
      Effect.gen(function* () {
        const { drivers, sent } = yield* makeDrivers(yield* make)
        const ids = Arr.map(Arr.range(1, 256), (n) => `task-${n}`)
        for (const id of ids.slice(0, 20)) yield* finish(drivers, id, 8000)
        sent.length = 0
        const records = yield* drivers.backend.read(ids)
        assert.strictEqual(sent.length, 1)
        assert.deepStrictEqual(
          records.map((record) => record?.exit?.length),
          ids.map((_, index) => (index < 20 ? 8002 : undefined))
        )
      })
    )

    it.live("records come whole and in the order of the ids, up to the first that exceeds an answer", () =>
      Effect.gen(function* () {
        const { drivers, sent } = yield* makeDrivers(yield* make)
        const sizes = { c: 10, a: LARGE, missing: -1, b: 20, e: LARGE, d: LARGE, f: 30 }
        for (const [id, size] of Object.entries(sizes)) if (size >= 0) yield* finish(drivers, id, size)
        sent.length = 0
        const records = yield* drivers.backend.read(Object.keys(sizes) as never)
        assert.deepStrictEqual(
          records.map((record) => record?.exit),
          [textOf(10), textOf(LARGE), undefined, textOf(20), textOf(LARGE)]
        )
        expectBounded(sent)
      })
    )

    it.live("a result that is stored between the two statements of a read comes with the next", () =>
      Effect.gen(function* () {
        const tables = yield* make
        const { drivers, hook, sent } = yield* makeDrivers(tables)
        for (const [id, size] of [
          ["a", 10],
          ["b", LARGE],
          ["c", LARGE - 1]
        ] as const) {
          yield* finish(drivers, id, size)
        }
        sent.length = 0
        const grow = tables.client.unsafe(
          `UPDATE ${tables.prefix}_tasks SET outcome = '${textOf(3 * LARGE)}' WHERE id = 'c'`
        )
        hook.before = (text) => (sent.length === 1 && text.includes("outcome") ? grow : Effect.void)
        const first = yield* drivers.backend.read(["a", "b", "c"])
        hook.before = () => Effect.void
        assert.deepStrictEqual(
          first.map((record) => record?.exit),
          [textOf(10), textOf(LARGE)]
        )
        const [rest] = yield* drivers.backend.read(["c"])
        assert.strictEqual(rest?.exit, textOf(3 * LARGE))
        expectBounded(sent.slice(0, 2))
      })
    )

    it.live("a page of dead letters that are removed while it is read goes on behind them", () =>
      Effect.gen(function* () {
        const tables = yield* make
        const { drivers, hook, sent } = yield* makeDrivers(tables)
        const park = (id: string, size: number) =>
          drivers.backend.parkMessage([
            {
              deadLetterId: id,
              queue: "q",
              reason: "PayloadInvalid",
              exit: "1",
              body: textOf(size),
              retentionMillis: 60_000
            }
          ])
        yield* park("first", 10)
        for (const id of ["a", "b"]) yield* park(id, 2 * LARGE)
        sent.length = 0
        const remove = tables.client.unsafe(
          `DELETE FROM ${tables.prefix}_dead_letters WHERE id IN ('a', 'b')`
        )
        hook.before = () => (sent.length === 1 ? remove : Effect.void)
        const page = yield* drivers.backend.listDeadLetters({ limit: 10 })
        assert.deepStrictEqual(
          page.map(({ body, id }) => [id, body]),
          [["first", textOf(10)]]
        )
        expectBounded(sent)
      })
    )
  })
}

const claimSuite = (make: Effect.Effect<Tables, unknown, Scope.Scope>): void => {
  const request = { queues: Arr.of("q"), max: 100, leaseMillis: 60_000, worker: "w" }

  describe("claims", () => {
    it.live("no statement of a claim of large messages returns more than an answer", () =>
      Effect.gen(function* () {
        const { drivers, sent } = yield* makeDrivers(yield* make)
        for (let n = 0; n < 6; n++)
          yield* drivers.broker.publish([envelope(`${n}`, LARGE, n < 3 ? "q" : "other")])
        sent.length = 0
        const found: Array<string | undefined> = []
        for (;;) {
          const claimed = yield* drivers.broker.claim({ ...request, queues: ["q", "other"] })
          if (claimed.length === 0) break
          for (const { body, id } of claimed) {
            assert.strictEqual(body, textOf(LARGE))
            found.push(id)
          }
        }
        assert.deepStrictEqual(found, ["0", "1", "2", "3", "4", "5"])
        expectBounded(sent)
      })
    )

    it.live("a repeated claim with a smaller maximum reads no body of what it puts back", () =>
      Effect.gen(function* () {
        const { drivers, sent } = yield* makeDrivers(yield* make)
        yield* drivers.broker.publish(Arr.map(Arr.range(1, 2), (n) => envelope(`${n}`, LARGE)))
        assert.strictEqual((yield* drivers.broker.claim({ ...request, claimId: "c" })).length, 2)
        sent.length = 0
        const again = yield* drivers.broker.claim({ ...request, claimId: "c", max: 1, isRetry: true })
        assert.deepStrictEqual(
          again.map(({ body }) => body),
          [textOf(LARGE)]
        )
        const returned = sent.reduce((sum, statement) => sum + statement.returned, 0)
        assert.isAtMost(returned, LARGE + SLACK)
      })
    )

    it.live("a claim of small messages behind large ones takes all of them again", () =>
      Effect.gen(function* () {
        const { drivers } = yield* makeDrivers(yield* make)
        yield* drivers.broker.publish(Arr.map(Arr.range(1, 4), (n) => envelope(`large ${n}`, 2 * LARGE)))
        yield* drivers.broker.publish(Arr.map(Arr.range(1, 90), (n) => envelope(`small ${n}`, 10)))
        const counts: Array<number> = []
        while (counts.reduce((sum, count) => sum + count, 0) < 94) {
          counts.push((yield* drivers.broker.claim(request)).length)
        }
        assert.isAtMost(counts.length, 12)
        yield* drivers.broker.publish(Arr.map(Arr.range(1, 100), (n) => envelope(`more ${n}`, 10)))
        assert.strictEqual((yield* drivers.broker.claim(request)).length, 100)
      })
    )
  })
}

await Postgres.describeWithPostgres("postgres: the size of answers", () => {
  const make = Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" }))
  readSuite(make)
  claimSuite(make)

  it.live("a claim that starts tasks takes some large messages, and signals that there are more", () =>
    Effect.gen(function* () {
      const { drivers, sent } = yield* makeDrivers(yield* make)
      const { backend, broker } = drivers
      const claim = backend.fusion?.claim
      assert.isDefined(claim)
      yield* broker.publish(Arr.map(Arr.range(1, 5), (n) => envelope(`${n}`, LARGE)))
      sent.length = 0
      const found: Array<string | undefined> = []
      const all = yield* Latch.make()
      const claims = Stream.runForEach(broker.ready(["q"], 100), () =>
        Effect.map(
          claim({ queues: ["q"], max: 100, leaseMillis: 60_000, worker: "w", startDefaults: [] }),
          (claimed) => {
            for (const { delivery } of claimed) {
              assert.strictEqual(delivery.body, textOf(LARGE))
              found.push(delivery.id)
            }
            if (found.length === 5) all.openUnsafe()
          }
        )
      )
      yield* Effect.race(claims, all.await)
      assert.deepStrictEqual(found, ["1", "2", "3", "4", "5"])
      expectBounded(sent)
    })
  )
})

await Mariadb.describeWithMariadb("mariadb: the size of answers", () => {
  readSuite(Mariadb.temporaryTables)
  claimSuite(Mariadb.temporaryTables)
})

describe("sqlite: the size of answers", () => {
  const make = Effect.gen(function* () {
    return { client: yield* SqliteClient.make({ filename: yield* temporaryFile }), prefix: "chicory" }
  })
  readSuite(make)
  claimSuite(make)
})
