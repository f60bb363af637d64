/** The connection that is reserved for a worker, over pools that answer late or cannot be interrupted. */
import { assert, it } from "@effect/vitest"
import { Effect, Latch, Semaphore } from "effect"
import type { SqlClient } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import type { Database } from "../../src/sql/Database.ts"
import * as ReservedConnection from "../../src/sql/ReservedConnection.ts"

interface PoolOptions {
  readonly size: number
  /** Whether who waits for a connection can be interrupted. */
  readonly interruptible?: boolean | undefined
  /** Whether a connection answers the question of that number, counted from 1. Default: always. */
  readonly answers?: ((question: number) => boolean) | undefined
}

/** A database over a pool without a server, of which only the parts are there that are asked. */
const makePool = ({ answers = () => true, interruptible = true, size }: PoolOptions) => {
  const free = Semaphore.makeUnsafe(size)
  const counts = { lent: 0, questions: 0 }
  const connection = {
    executeUnprepared: () =>
      Effect.suspend(() => (answers(++counts.questions) ? Effect.succeed([]) : Effect.never))
  } as unknown as Connection
  const take = Effect.map(free.take(1), () => {
    counts.lent++
    return connection
  })
  const client = {
    reserve: Effect.acquireRelease(take, () => free.release(1), { interruptible }),
    config: { maxConnections: size }
  } as unknown as SqlClient.SqlClient
  const db = {
    client,
    store: "pool",
    dialect: { isLocalFile: false },
    onConnection: () => (effect: Effect.Effect<unknown>) => effect,
    hasConnection: () => false
  } as unknown as Database
  return { client, counts, db }
}

it.live("a pool whose waiters cannot be interrupted delays no call of a worker", () =>
  Effect.gen(function* () {
    const { client, db } = makePool({ size: 3, interruptible: false })
    const reserved = yield* ReservedConnection.make(db)
    yield* reserved.claims(Effect.void)
    const release = Latch.makeUnsafe(false)
    const hold = Effect.scoped(Effect.andThen(client.reserve, release.await))
    yield* Effect.forkScoped(hold, { startImmediately: true })
    yield* Effect.forkScoped(hold, { startImmediately: true })
    let ended = 0
    const call = reserved.withConnection(
      Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => ended++)
      )
    )
    // all of them end while the other connections are held
    yield* Effect.all([call, call, call], { concurrency: "unbounded", discard: true })
    assert.strictEqual(ended, 3)
    release.openUnsafe()
  })
)

it.live("a connection that answers late stays reserved", () =>
  Effect.gen(function* () {
    const { counts, db } = makePool({ size: 3, answers: (question) => question !== 1 })
    const reserved = yield* ReservedConnection.make(db)
    yield* reserved.claims(Effect.void)
    assert.deepStrictEqual(counts, { lent: 1, questions: 2 })
  })
)

it.live("a connection that never answers is given back, and another one is reserved", () =>
  Effect.gen(function* () {
    const { counts, db } = makePool({ size: 3, answers: (question) => question > 5 })
    const reserved = yield* ReservedConnection.make(db)
    yield* reserved.claims(Effect.void)
    assert.deepStrictEqual(counts, { lent: 2, questions: 6 })
  })
)
