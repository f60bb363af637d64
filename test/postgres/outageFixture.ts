/** Stores and workers on a PostgreSQL server of one test, and queries of its tables. */
import { assert } from "@effect/vitest"
import { Broker } from "chicory"
import { Effect, Schedule } from "effect"
import { eventually } from "../support/storeFixture.ts"
import type { OwnServer } from "./ownServer.ts"

export const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

export const payloads = (count: number, millis: number) => numbers(count).map((n) => ({ n, millis }))

/** Options of a store whose sweep of waiters does not run during a test. */
export const unswept = { sweepInterval: "60 seconds" } as const

/** Prints a measurement if `CHICORY_FIGURES` is set. */
export const report = (name: string, millis: number) =>
  Effect.sync(() => process.env["CHICORY_FIGURES"] && console.log(`${name}: ${Math.round(millis)} ms`))

/** Queries one number. */
export const numberOf = (server: OwnServer, expression: string, from: string) =>
  Effect.map(server.query(`SELECT ${expression}::int AS n FROM ${from}`), ([row]) => Number(row!["n"]))

/** Counts the runs that ended by a crash of their worker. */
export const crashesOf = (server: OwnServer) => numberOf(server, "COALESCE(sum(crashes), 0)", "chicory_tasks")

/** A condition on `pg_stat_activity` that selects the listening connections. */
export const LISTENS = "query ILIKE 'LISTEN%'"

/** Waits until at least `count` connections listen. */
export const untilListening = (server: OwnServer, count: number) =>
  eventually(
    Effect.map(
      numberOf(server, "count(*)", `pg_stat_activity WHERE ${LISTENS}`),
      (listening) => listening >= count
    )
  )

/** Waits until the default queue is empty. */
export const drained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
)

const isTyped = (error: {
  readonly _tag: string
}): error is { _tag: string; retryable: boolean; message: string } =>
  error._tag === "BackendError" || error._tag === "BrokerError"

/** Returns the message of a call's typed error, and checks that the error is retryable. */
export const retryableMessageOf = <R>(call: Effect.Effect<unknown, { readonly _tag: string }, R>) =>
  Effect.map(Effect.flip(call), (error) => {
    assert(isTyped(error), error._tag)
    assert.isTrue(error.retryable, error.message)
    return error.message
  })

/** Retries a call every 30 milliseconds until it succeeds. */
export const retryUntilAccepted = <A, E, R>(call: Effect.Effect<A, E, R>) =>
  Effect.retry(call, { schedule: Schedule.spaced("30 millis"), times: 300 })
