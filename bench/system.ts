/**
 * What the program asks of a system it measures. One module under `systems/` for each system, and nothing else
 * has to know it but the list in `stores.ts`.
 */

/** About 200 bytes as JSON. */
export interface Payload {
  readonly value: number
  readonly account: string
  readonly note: string
  readonly tags: ReadonlyArray<string>
}

export const payloads = (count: number, from = 0): Array<Payload> =>
  Array.from({ length: count }, (_, index) => {
    const value = from + index
    return {
      value,
      account: `account-${value}`,
      note: "Your order has left our house and should be with you by the end of the week. Thank you for waiting.",
      tags: ["order", "shipping", "mail"]
    }
  })

export type TaskId = string | number

export interface WorkOptions {
  readonly concurrency: number
  /** How long the task's body sleeps; with 0 it does nothing. Its result is `{ value }` of the payload. */
  readonly sleepMillis: number
}

export interface RunningWorker {
  /** Settles when so many tasks are over and done with: result stored, message gone. */
  readonly finished: (count: number) => Promise<void>
  readonly stop: () => Promise<void>
}

export interface RoundTrips {
  readonly payloads: ReadonlyArray<Payload>
  /** So many at once; each enqueues a task, awaits its result, and does so again until the payloads are used up. */
  readonly callers: number
  /** After that long no caller begins another. */
  readonly maxMillis: number
}

/** A system in one process: producer, worker, or both. */
export interface Session {
  /** Enqueue, each when the one before it is stored. */
  readonly oneByOne: (payloads: ReadonlyArray<Payload>) => Promise<void>
  /** Enqueue, so many at once. */
  readonly concurrently: (
    payloads: ReadonlyArray<Payload>,
    inFlight: number
  ) => Promise<ReadonlyArray<TaskId>>
  /** Enqueue by the system's call for many, once for each chunk. */
  readonly bulk?: (chunks: ReadonlyArray<ReadonlyArray<Payload>>) => Promise<ReadonlyArray<TaskId>>
  readonly work: (options: WorkOptions) => Promise<RunningWorker>
  /** The milliseconds that each round trip took. Fails if a result is not that of its payload. */
  readonly roundTrips?: (options: RoundTrips) => Promise<ReadonlyArray<number>>
  /** How many of these tasks are done, with their result stored where the system stores results. */
  readonly check: (ids: ReadonlyArray<TaskId>) => Promise<number>
  readonly close: () => Promise<void>
}

export interface System {
  /** Printed under the table: its settings, and what it does not do that the others do. */
  readonly note?: string
  /** `location` is the store's: a file, an address. */
  readonly open: (location: string) => Promise<Session>
}
