/** Drivers under a prefix that only one test uses. */
import { Effect, type Scope } from "effect"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { remove } from "./remove.ts"
import { sharedUrl, withChannel } from "./server.ts"

/** Returns a unique prefix. */
export const makePrefix = (): string => `chicory-test-${crypto.randomUUID()}`

/** Opens a driver under a unique prefix on the shared server. What it declares is removed when the scope closes. */
export const temporaryDriver = Effect.fnUntraced(function* (
  options: RabbitBroker.Options = {}
): Effect.fn.Return<BrokerDriver, unknown, Scope.Scope> {
  const url = options.url ?? sharedUrl
  const prefix = makePrefix()
  const queues = new Set<string>()
  yield* Effect.addFinalizer(() =>
    Effect.orDie(withChannel(sharedUrl, (channel) => remove(channel, prefix, queues)))
  )
  const driver = yield* RabbitBroker.makeDriver({ ...options, url, prefix })
  const recordQueues = (names: Iterable<string>) => {
    for (const name of names) queues.add(name)
  }
  return {
    ...driver,
    publish: (envelopes) => {
      recordQueues(envelopes.map(({ queue }) => queue))
      return driver.publish(envelopes)
    },
    claim: (claim) => {
      recordQueues(claim.queues)
      return driver.claim(claim)
    },
    ready: (names, slots) => {
      recordQueues(names)
      return driver.ready(names, slots)
    },
    counts: (names) => {
      recordQueues(names)
      return driver.counts(names)
    },
    purge: (queue, limit) => {
      recordQueues([queue])
      return driver.purge(queue, limit)
    }
  }
})
