/** Stores on the shared server, and queries of the server. */
import { Backend } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { Effect, Layer, type Scope } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import type { ServerError } from "../support/ownServers.ts"
import type { Store } from "../support/storeFixture.ts"
import { remove } from "./remove.ts"
import { sharedUrl, withChannel } from "./server.ts"
import { makePrefix } from "./temporary.ts"

/** Returns a unique prefix. Its objects for these queues are removed from the server when the scope closes. */
export const temporaryPrefix = (
  queues: ReadonlyArray<string> = ["default"]
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.sync(makePrefix), (prefix) =>
    Effect.orDie(withChannel(sharedUrl, (channel) => remove(channel, prefix, queues)))
  )

/** Opens a broker with its own connections, as another process would, beside a backend that several stores may share. */
export const openStore = (
  prefix: string,
  backend: Layer.Layer<Backend.Backend>
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Layer.build(Layer.fresh(Layer.merge(backend, RabbitBroker.layer({ url: sharedUrl, prefix }))))

/** Makes a backend in memory that all stores of a test share. */
export const sharedBackend: Effect.Effect<Layer.Layer<Backend.Backend>, never, Scope.Scope> = Effect.map(
  Layer.build(Backend.layerMemory),
  Layer.succeedContext
)

/** Counts the messages of a queue that the server has not delivered. */
export const countReady = (prefix: string, queue: string): Effect.Effect<number, ServerError> => {
  const name = new Names(prefix).queue(queue)
  return withChannel(sharedUrl, async (channel) => (await channel.checkQueue(name)).messageCount)
}
