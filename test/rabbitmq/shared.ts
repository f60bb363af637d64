/** Stores on the shared server, as programs have them, and what tests ask of the server beside them. */
import { Backend } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { Effect, Layer, type Scope } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import type { ServerError } from "../support/ownServers.ts"
import type { Store } from "../support/storeFixture.ts"
import { remove } from "./remove.ts"
import { sharedUrl, withChannel } from "./server.ts"
import { makePrefix } from "./temporary.ts"

/** A prefix that nobody else has. What it has for these queues is removed when the scope closes. */
export const temporaryPrefix = (
  queues: ReadonlyArray<string> = ["default"]
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.sync(makePrefix), (prefix) =>
    Effect.orDie(withChannel(sharedUrl, (channel) => remove(channel, prefix, queues)))
  )

/** A broker with connections of its own, as another process has it, beside results that may be those of others. */
export const openStore = (
  prefix: string,
  backend: Layer.Layer<Backend.Backend>
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Layer.build(Layer.fresh(Layer.merge(backend, RabbitBroker.layer({ url: sharedUrl, prefix }))))

/** Results in memory, for all stores of a test. */
export const sharedBackend: Effect.Effect<Layer.Layer<Backend.Backend>, never, Scope.Scope> = Effect.map(
  Layer.build(Backend.layerMemory),
  Layer.succeedContext
)

/** How many messages of a queue the server has left to give out. */
export const readyOn = (prefix: string, queue: string): Effect.Effect<number, ServerError> => {
  const name = new Names(prefix).queue(queue)
  return withChannel(sharedUrl, async (channel) => (await channel.checkQueue(name)).messageCount)
}
