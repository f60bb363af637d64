/** Deployments of the fault suites: a store, workers over it, and this process as the producer. */
import type { NodeServices } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import { makeMemoryDrivers } from "../../src/memory/MemoryDrivers.ts"
import { Faults } from "../../src/testing/suites/worker/faults.ts"
import * as EventLog from "../support/eventLog.ts"
import { program, start, type EventProcess } from "../support/processes.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as DyingProducer from "./dyingProducer.ts"
import { type Die, unfused } from "./killPoints.ts"
import * as Worker from "./worker.ts"
import { WorkerEvent } from "./workerEvents.ts"
import type { Options } from "./workerProcess.ts"

/** A worker that emits events. */
export interface FaultyWorker {
  readonly events: ReadonlyArray<WorkerEvent>
  readonly until: (check: (events: ReadonlyArray<WorkerEvent>) => boolean) => Effect.Effect<void>
  /** Stops it gracefully, as a shutdown does. */
  readonly stop: Effect.Effect<void>
  /** Waits until it has reached its kill point and has died. */
  readonly died: Effect.Effect<void, unknown>
}

/** A store, and how its workers are started. */
export interface Deployment<out W extends FaultyWorker = FaultyWorker> {
  /** The drivers of this process. */
  readonly drivers: StoreLocations.Drivers
  /** Starts a worker and waits until it is ready. It ends with the scope. */
  readonly startWorker: (
    options: Options
  ) => Effect.Effect<W, unknown, Scope.Scope | NodeServices.NodeServices>
  /** Runs a producer until it dies and returns its events. */
  readonly produce: (
    options: DyingProducer.Options
  ) => Effect.Effect<ReadonlyArray<WorkerEvent>, unknown, Scope.Scope | NodeServices.NodeServices>
}

/** A worker in its own process. */
export interface WorkerProcess extends FaultyWorker, EventProcess<WorkerEvent> {}

/** Makes a deployment of processes over one store location. */
export const ofLocation = (
  location: StoreLocations.StoreLocation
): Effect.Effect<Deployment<WorkerProcess>, unknown, Scope.Scope> =>
  Effect.map(StoreLocations.drivers(location), (drivers) => {
    const run = (name: string, options: object) =>
      start(
        program(`../faults/${name}`, [StoreLocations.encode(location), JSON.stringify(options)]),
        WorkerEvent
      )
    return {
      drivers,
      produce: (options) =>
        Effect.gen(function* () {
          const producer = yield* run("producerProcess.ts", options)
          assert.isFalse(yield* producer.ended, "it dies")
          return producer.events
        }),
      startWorker: (options) =>
        Effect.gen(function* () {
          const worker = yield* run("workerProcess.ts", options)
          yield* worker.until((events) => events.some(({ _tag }) => _tag === "Ready"))
          const reached = worker.until((events) => events.some(({ _tag }) => _tag === "Reached"))
          return { ...worker, stop: worker.signal("SIGTERM"), died: Effect.andThen(reached, worker.ended) }
        })
    }
  })

/**
 * A deployment of this process over one memory store. A worker or producer that dies makes no more calls and receives
 * no more answers; its pending calls end with the scope.
 */
export const inMemory: Effect.Effect<Deployment> = Effect.map(makeMemoryDrivers, (drivers) => {
  const makeKillable = Effect.gen(function* () {
    const faults = new Faults()
    // a driver's hints have one consumer, which is the producer
    const { hints: _, ...backend } = drivers.backend
    const isolated = faults.applyTo({
      backend: { ...backend, capabilities: { ...backend.capabilities, hints: false } },
      broker: drivers.broker
    })
    const eventLog = EventLog.make<WorkerEvent>()
    const dead = yield* Deferred.make<void>()
    const released = yield* Deferred.make<never>()
    const die: Die = (point) =>
      Effect.suspend(() => {
        eventLog.append({ _tag: "Reached", point })
        faults.modeOf = () => "hangs"
        Deferred.doneUnsafe(dead, Effect.void)
        return Deferred.await(released)
      })
    const emit = (entry: WorkerEvent): void => {
      if (!Deferred.isDoneUnsafe(dead)) eventLog.append(entry)
    }
    const release = Effect.suspend(() => {
      faults.heal()
      return Deferred.die(released, new Error("who died is buried"))
    })
    return { drivers: isolated, eventLog, died: Deferred.await(dead), die, emit, release }
  })
  return {
    drivers,
    produce: (options) =>
      Effect.gen(function* () {
        const { release, die, died, drivers, eventLog, emit } = yield* makeKillable
        yield* Effect.forkScoped(DyingProducer.run(drivers, options, emit, die))
        yield* died
        yield* Effect.addFinalizer(() => release)
        return eventLog.events
      }),
    startWorker: (options) =>
      Effect.gen(function* () {
        const { release, die, died, drivers, eventLog, emit } = yield* makeKillable
        const scope = yield* Scope.fork(yield* Effect.scope)
        const shaped = options.unfused === true ? unfused(drivers) : drivers
        yield* Layer.buildWithScope(Worker.layer(shaped, options, emit, die), scope)
        yield* Effect.addFinalizer(() => release)
        return {
          events: eventLog.events,
          until: eventLog.until,
          stop: Effect.asVoid(Effect.forkDetach(Scope.close(scope, Exit.void))),
          died
        }
      })
  }
})
