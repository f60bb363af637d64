/**
 * Results and messages in this process, for tests and for work that need not outlive it.
 *
 * ```ts
 * import { MemoryStore } from "chicory"
 *
 * program.pipe(Effect.provide(MemoryStore.layer()))
 * ```
 *
 * **When to use**
 *
 * Use it in tests: every time comes from Effect's `Clock`, so leases, delays, retries and retention play under
 * `TestClock`. Use it in a program whose tasks may be lost with the process.
 *
 * **Gotchas**
 *
 * Nothing is shared between processes, and nothing survives the end of this one.
 *
 * @since 0.1.0
 * @module
 */
import { Context, Effect, Layer } from "effect"
import * as Backend from "../Backend.ts"
import * as Broker from "../Broker.ts"
import { makeMemoryDrivers } from "./MemoryDrivers.ts"

/**
 * Options for {@link layer}: the defaults of tasks and workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Backend.Options, Broker.Options {}

const makeLayer = (options?: Options): Layer.Layer<Backend.Backend | Broker.Broker> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const drivers = yield* makeMemoryDrivers
      return Context.make(Backend.Backend, yield* Backend.make(drivers.backend, options)).pipe(
        Context.add(Broker.Broker, yield* Broker.make(drivers.broker, options))
      )
    })
  )

/** Made once, so that every part of a program that asks for the layer without options gets the same store. */
const defaultLayer = makeLayer()

/**
 * The `Backend` and the `Broker` of one store in memory.
 *
 * **Details**
 *
 * The two share their memory, so enqueuing, claiming and settling are single steps. `Backend.layerMemory` and
 * `Broker.layerMemory` give one of the two, for pairings with another store.
 *
 * **Gotchas**
 *
 * Without options every call returns the same layer, and parts of a program that are built together share its store.
 * Each call with options returns another layer, with a store of its own: keep it in a constant.
 *
 * @see {@link Backend.layerMemory}
 * @see {@link Broker.layerMemory}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Backend.Backend | Broker.Broker> =>
  options === undefined ? defaultLayer : makeLayer(options)
