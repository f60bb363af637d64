/** The layers of a store: both services over its two drivers, or one of the services beside another store. */
import { Context, Effect, Layer, type Scope } from "effect"
import * as Backend from "../../Backend.ts"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as Broker from "../../Broker.ts"
import type { BrokerDriver } from "../../BrokerDriver.ts"
import { BackendError, BrokerError } from "../../StoreError.ts"
import { untraced } from "../tracing.ts"

/** How the drivers of a store are opened. */
export interface OpenStore<in out E, out R> {
  readonly makeDrivers: Effect.Effect<
    { readonly backend: BackendDriver; readonly broker: BrokerDriver },
    E,
    R | Scope.Scope
  >
  /** Names the opening in errors. */
  readonly operation: string
  /** Whether opening the store again may succeed. */
  readonly isRetryable: (cause: E) => boolean
}

type Options = Backend.Options & Broker.Options

const asBackendError =
  <E>({ isRetryable, operation }: OpenStore<E, unknown>) =>
  (cause: E) =>
    new BackendError({ operation, retryable: isRetryable(cause), cause })

/** Makes the layer of both services. */
export const layer = <E, R>(
  store: OpenStore<E, R>,
  options?: Options
): Layer.Layer<Backend.Backend | Broker.Broker, BackendError, Exclude<R, Scope.Scope>> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { backend, broker } = yield* Effect.mapError(untraced(store.makeDrivers), asBackendError(store))
      return Context.make(Backend.Backend, yield* Backend.make(backend, options)).pipe(
        Context.add(Broker.Broker, yield* Broker.make(broker, options))
      )
    })
  )

/** Makes the layer of the backend alone. */
export const backendLayer = <E, R>(
  store: OpenStore<E, R>,
  options?: Backend.Options
): Layer.Layer<Backend.Backend, BackendError, Exclude<R, Scope.Scope>> =>
  Backend.layer(
    store.makeDrivers.pipe(
      Effect.map(({ backend }) => backend),
      Effect.mapError(asBackendError(store))
    ),
    options
  )

/** Makes the layer of the broker alone. */
export const brokerLayer = <E, R>(
  store: OpenStore<E, R>,
  options?: Broker.Options
): Layer.Layer<Broker.Broker, BrokerError, Exclude<R, Scope.Scope>> =>
  Broker.layer(
    store.makeDrivers.pipe(
      Effect.map(({ broker }) => broker),
      Effect.mapError(
        (cause) => new BrokerError({ operation: store.operation, retryable: store.isRetryable(cause), cause })
      )
    ),
    options
  )
