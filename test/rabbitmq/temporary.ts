/** Drivers under a prefix of their own. */
import { Effect, type Scope } from "effect"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { remove } from "./remove.ts"
import { sharedUrl, withChannel } from "./server.ts"

/** A prefix that nobody else has. */
export const makePrefix = (): string => `chicory-test-${crypto.randomUUID()}`

/** The driver of one prefix on the shared server; what it has made there is removed when the scope closes. */
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
  const noting = (names: Iterable<string>) => {
    for (const name of names) queues.add(name)
  }
  return {
    ...driver,
    publish: (envelopes) => {
      noting(envelopes.map(({ queue }) => queue))
      return driver.publish(envelopes)
    },
    claim: (claim) => {
      noting(claim.queues)
      return driver.claim(claim)
    },
    ready: (names, slots) => {
      noting(names)
      return driver.ready(names, slots)
    },
    counts: (names) => {
      noting(names)
      return driver.counts(names)
    },
    purge: (queue, limit) => {
      noting([queue])
      return driver.purge(queue, limit)
    }
  }
})
