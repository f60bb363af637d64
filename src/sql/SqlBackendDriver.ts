/**
 * The backend's port over SQL: the operations, each in its transaction, and the news of what they changed.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import type { BackendDriver, Batch } from "../BackendDriver.ts"
import * as Changes from "./Changes.ts"
import * as Database from "./Database.ts"
import * as DeadLetters from "./DeadLetters.ts"
import * as Enqueuing from "./Enqueuing.ts"
import { isPermanent } from "./isPermanent.ts"
import * as Reading from "./Reading.ts"
import * as Records from "./Records.ts"
import * as Retention from "./Retention.ts"
import * as Running from "./Running.ts"
import * as Stopping from "./Stopping.ts"
import type { Wake } from "./Wake.ts"
import * as Workers from "./Workers.ts"

/** What a driver needs besides its tables. */
export interface Options extends Database.Options {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly durable: boolean
  readonly wake: Wake
}

/** Over tables that `Migrations.run` brought up to date. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<BackendDriver<Database.StoreError>, never, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const changes = Changes.make(db, options.wake, crypto.randomUUID())
  const records = Records.make(db)
  const enqueuing = Enqueuing.make(db, records)
  const running = Running.make(db, records)
  const reading = Reading.make(db, records)
  const stopping = Stopping.make(db, records)
  const letters = DeadLetters.make(db, records)
  const workers = Workers.make(db)
  const retention = Retention.make(db)

  const committed =
    <In, A>(
      operation: (batch: In) => Effect.Effect<Running.Changed<A>, Database.StoreError>,
      reach: "watched" | "all" = "watched"
    ) =>
    (batch: In): Effect.Effect<ReadonlyArray<A>, Database.StoreError> =>
      Effect.map(
        db.transaction(
          Effect.tap(operation(batch), ({ changed }) =>
            reach === "all" ? changes.recordForAll(changed) : changes.record(changed)
          )
        ),
        ({ answers, changed }) => {
          if (reach === "all") changes.tellAll(changed)
          else changes.tell(changed)
          return answers
        }
      )

  const endLapsed = committed(reading.endLapsed)
  const getMany: BackendDriver<Database.StoreError>["getMany"] = (ids) =>
    Effect.flatMap(reading.read(ids), ({ lapsed, records }) =>
      lapsed.length === 0
        ? Effect.succeed(records)
        : Effect.andThen(
            endLapsed(lapsed),
            Effect.map(reading.read(ids), (again) => again.records)
          )
    )

  return {
    name: options.name,
    capabilities: { hints: true, durable: options.durable, transactional: false },
    isPermanent,
    create: (batch) =>
      Effect.tap(enqueuing.create(batch), () => Effect.sync(() => changes.tell(batch.map(({ id }) => id)))),
    markPublished: enqueuing.markPublished,
    start: committed(running.start),
    renew: committed(running.renew),
    settle: committed(running.settle),
    park: (parked) => db.transaction(letters.park(parked)),
    getMany,
    watch: (ids) => Effect.andThen(changes.watch(ids), getMany(ids)),
    unwatch: (ids) => Effect.sync(() => changes.unwatch(ids)),
    hints: changes.hints,
    cancel: committed(stopping.cancel, "all"),
    forget: (ids: Batch<string>) => Effect.asVoid(committed(stopping.forget)(ids)),
    reopen: committed(letters.reopen),
    getDeadLetters: letters.getMany,
    deadLetters: letters.list,
    countDeadLetters: letters.count,
    removeDeadLetters: letters.remove,
    heartbeat: workers.heartbeat,
    farewell: workers.farewell,
    workers: workers.list,
    sweep: (limit) =>
      Effect.gen(function* () {
        const lapsed = yield* retention.lapsed(limit)
        if (lapsed.length > 0) yield* endLapsed(lapsed)
        const removed = yield* retention.remove(limit)
        yield* changes.trim
        return lapsed.length + removed
      })
  }
})
