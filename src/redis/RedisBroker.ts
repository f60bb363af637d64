/**
 * Messages in Redis, beside a backend of another kind. With both in one server, take `RedisStore`.
 *
 * @module
 */
import { Effect, type Layer } from "effect"
import type { Redis } from "effect/persistence/Redis"
import * as Broker from "../Broker.ts"
import * as RedisStore from "./RedisStore.ts"

/** As `RedisStore.layer`, the broker alone. */
export const layer = (
  options: RedisStore.Options = {}
): Layer.Layer<Broker.Broker, Broker.BrokerError, Redis> =>
  Broker.layer(
    RedisStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.broker),
      Effect.mapError(
        (cause) =>
          new Broker.BrokerError({
            operation: RedisStore.operation,
            retryable: RedisStore.isRetryable(cause),
            cause
          })
      )
    ),
    options
  )
