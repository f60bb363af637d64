/**
 * The interface of a measured system. Each system is a module in `systems/`, listed in `stores.ts`.
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
  /** How long the task sleeps; with 0 it does nothing. Its result is `{ value }`, of the payload. */
  readonly sleepMillis: number
}

export interface RunningWorker {
  /** Resolves when `count` tasks are finished: their results stored, and their messages removed. */
  readonly finished: (count: number) => Promise<void>
  readonly stop: () => Promise<void>
}

export interface RoundTrips {
  readonly payloads: ReadonlyArray<Payload>
  /** The number of concurrent callers. Each repeats enqueuing a task and awaiting its result until no payload is left. */
  readonly callers: number
  /** Milliseconds after which no caller starts another round trip. */
  readonly maxMillis: number
}

/** A system in one process: producer, worker, or both. */
export interface Session {
  /** Enqueues one task after another; each waits until the one before is stored. */
  readonly oneByOne: (payloads: ReadonlyArray<Payload>) => Promise<void>
  /** Enqueues, with `inFlight` calls at a time. */
  readonly concurrently: (
    payloads: ReadonlyArray<Payload>,
    inFlight: number
  ) => Promise<ReadonlyArray<TaskId>>
  /** Enqueues by the system's bulk call, one call for each chunk. */
  readonly bulk?: (chunks: ReadonlyArray<ReadonlyArray<Payload>>) => Promise<ReadonlyArray<TaskId>>
  readonly work: (options: WorkOptions) => Promise<RunningWorker>
  /** Returns the milliseconds of each round trip. Fails if a result does not match its payload. */
  readonly roundTrips?: (options: RoundTrips) => Promise<ReadonlyArray<number>>
  /** Returns how many of these tasks are finished, with their result stored if the system stores results. */
  readonly check: (ids: ReadonlyArray<TaskId>) => Promise<number>
  readonly close: () => Promise<void>
}

export interface System {
  /** Printed under the table: the system's settings, and what it does less than the others. */
  readonly note?: string
  /** `location` comes from the store: a file or an address. */
  readonly open: (location: string) => Promise<Session>
}
