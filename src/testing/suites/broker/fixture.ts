/**
 * The driver under test, with the operations that the tests of `BrokerSuite` use.
 */
import { assert, type TestContext } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import type { Batch, BrokerDriver, Delivery, Envelope, QueueCounts, Release } from "../../../BrokerDriver.ts"
import * as Suite from "../Suite.ts"

/** The fixture of a test. */
export type Fixture = ReturnType<typeof makeFixture>

/** Registers one test. */
export type Test = (
  title: string,
  body: (t: Fixture, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope>
) => void

/** Makes an envelope of the default queue. */
export const envelope = (id: string, more?: Partial<Envelope>): Envelope => ({
  id,
  task: "mail",
  queue: "default",
  priority: 0,
  delayMillis: 0,
  body: `{"message":"${id}"}`,
  ...more
})

/** Returns the ids of deliveries. */
export const idsOf = (deliveries: ReadonlyArray<Delivery>): Array<string> =>
  deliveries.map(({ id }) => id ?? "a message without an id")

/** Why a test of leases is skipped. */
export const NO_LEASE = "a connection holds the claims of this driver"
/** Why a test of order is skipped. */
export const NO_ORDER = "a queue of this driver consists of several parts, each with its own order"

const withoutAge = ({ oldestMillis: _, ...counts }: QueueCounts) => counts

/** Makes the fixture: operations on one message each, whose answers are checked where a test depends on them. */
export const makeFixture = (driver: BrokerDriver, time: Suite.Time) => {
  const publish = (id: string, more?: Partial<Envelope>) => driver.publish([envelope(id, more)])
  const claim = (max = 100, leaseMillis = time.long, queues: Batch<string> = ["default"]) =>
    driver.claim({ queues, max, leaseMillis, worker: "w" })
  const claimIds = (max?: number) => Effect.map(claim(max), idsOf)
  const claimOne = (leaseMillis?: number) =>
    Effect.map(claim(1, leaseMillis), ([delivery]) => {
      assert(delivery !== undefined, "there is a message to claim")
      return delivery
    })
  return {
    driver,
    time,
    publish,
    claim,
    claimIds,
    claimOne,
    /** Makes a claim, and waits until its lease has lapsed. */
    claimAndLapse: Effect.tap(claimOne(time.units(1)), () => time.pass(2)),
    /** Whether leases can lapse: not where a connection holds the claims. */
    hasLeases: driver.capabilities.lease === "store",
    isOrdered: driver.capabilities.ordered !== false,
    ack: ({ handle }: Delivery) => Suite.only(driver.ack([handle])),
    renew: ({ handle }: Delivery, leaseMillis = time.long) => Suite.only(driver.renew([handle], leaseMillis)),
    release: ({ handle }: Delivery, more?: Partial<Release>) =>
      driver.release([{ handle, afterMillis: 0, ...more }]),
    /** Counts queues, without the ages of their messages. */
    countsOf: (queues: Batch<string>) => Effect.map(driver.counts(queues), Arr.map(withoutAge)),
    counts: Effect.map(Suite.only(driver.counts(["default"])), withoutAge),
    /** The age of the oldest message that is due; `undefined` where the store does not know it. */
    oldestMillis: Effect.map(Suite.only(driver.counts(["default"])), ({ oldestMillis }) => oldestMillis)
  }
}
