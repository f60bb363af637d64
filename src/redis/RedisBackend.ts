/**
 * Results in Redis, beside a broker of another kind. With both in one server, take `RedisStore`.
 *
 * @module
 */
import { Effect, type Layer } from "effect"
import type { Redis } from "effect/persistence/Redis"
import * as Backend from "../Backend.ts"
import * as RedisStore from "./RedisStore.ts"

/** As `RedisStore.layer`, the backend alone. */
export const layer = (
  options: RedisStore.Options = {}
): Layer.Layer<Backend.Backend, Backend.BackendError, Redis> =>
  Backend.layer(
    RedisStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.backend),
      Effect.mapError(RedisStore.toBackendError)
    ),
    options
  )
