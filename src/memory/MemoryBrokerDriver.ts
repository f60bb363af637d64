/**
 * The broker driver over this process's memory.
 *
 * An operation runs in one step of its fiber, which makes it atomic. Every time is that of the caller's `Clock`.
 */
import { Effect, Stream } from "effect"
import type { BrokerDriver } from "../BrokerDriver.ts"
import { MemoryMessages } from "./MemoryMessages.ts"
import { MessageWaiter } from "./MemoryQueue.ts"
import { withNow } from "./withNow.ts"

/** Makes the driver over messages. */
export const makeBroker = (messages: MemoryMessages): BrokerDriver<never> => ({
  name: "memory",
  capabilities: {
    priorities: 256,
    reliableHints: true,
    repeatableClaims: true,
    lease: "store",
    maxDelayMillis: Number.MAX_SAFE_INTEGER
  },
  publish: (envelopes) =>
    withNow((now) => {
      for (const envelope of envelopes) messages.publish(envelope, now)
    }),
  claim: (request) => withNow((now) => messages.claim(request, now)),
  setAside: {
    tasks: (names) => withNow((now) => messages.setAsideTasks(names, now)),
    claim: (request) => withNow((now) => messages.claimSetAside(request, now))
  },
  ready: (names) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const queues = Array.from(new Set(names), (name) => messages.queue(name))
        const waiter = new MessageWaiter()
        yield* Effect.acquireRelease(
          Effect.sync(() => queues.forEach(({ waiters }) => waiters.add(waiter))),
          () => Effect.sync(() => queues.forEach(({ waiters }) => waiters.delete(waiter)))
        )
        return Stream.fromEffectRepeat(waiter.await(queues))
      })
    ),
  renew: (handles, leaseMillis) =>
    withNow((now) => handles.map((handle) => messages.renew(handle, leaseMillis, now))),
  ack: (handles) => Effect.sync(() => handles.map((handle) => messages.ack(handle))),
  release: (releases) =>
    withNow((now) => {
      for (const release of releases) messages.release(release, now)
    }),
  // a message that is parked here could not be read again: it is dropped
  reject: (rejections) =>
    Effect.sync(() => {
      for (const { handle } of rejections) messages.ack(handle)
    }),
  counts: (names) => withNow((now) => names.map((name) => messages.counts(name, now))),
  purge: (name, limit) => withNow((now) => messages.purge(name, limit, now))
})

/** Makes the driver, with no messages. */
export const makeMemoryBroker: Effect.Effect<BrokerDriver<never>> = Effect.sync(() =>
  makeBroker(new MemoryMessages())
)
