/** Where a system of the fault suites runs: a store, and workers over it, beside this process, which is the producer. */
import type { NodeServices } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import { makeMemoryStore } from "../../src/memory/MemoryDrivers.ts"
import { Faults } from "../../src/testing/suites/worker/faults.ts"
import * as Tape from "../support/eventLog.ts"
import { program, start, type Telling } from "../support/processes.ts"
import * as Places from "../support/storeLocations.ts"
import * as DyingProducer from "./dyingProducer.ts"
import { type Die, unfused } from "./killPoints.ts"
import * as Worker from "./worker.ts"
import { Entry } from "./workerEvents.ts"
import type { Options } from "./workerProcess.ts"

/** A worker that tells what it does. */
export interface FaultyWorker {
  readonly told: ReadonlyArray<Entry>
  readonly until: (check: (told: ReadonlyArray<Entry>) => boolean) => Effect.Effect<void>
  /** Tells it to stop, as a shutdown does. */
  readonly stop: Effect.Effect<void>
  /** Waits until it has come to the point where it dies, and is dead. */
  readonly died: Effect.Effect<void, unknown>
}

/** A store, and how workers over it are started. */
export interface Site<out W extends FaultyWorker = FaultyWorker> {
  /** Of this process. */
  readonly drivers: Places.Drivers
  /** Starts a worker, and waits until it works. It ends with the scope. */
  readonly startWorker: (
    options: Options
  ) => Effect.Effect<W, unknown, Scope.Scope | NodeServices.NodeServices>
  /** Runs a producer until it dies, and gives what it told. */
  readonly produce: (
    options: DyingProducer.Options
  ) => Effect.Effect<ReadonlyArray<Entry>, unknown, Scope.Scope | NodeServices.NodeServices>
}

/** A worker in a process of its own. */
export interface WorkerProcess extends FaultyWorker, Telling<Entry> {}

/** Processes over one place. */
export const ofPlace = (place: Places.Place): Effect.Effect<Site<WorkerProcess>, unknown, Scope.Scope> =>
  Effect.map(Places.drivers(place), (drivers) => {
    const run = (name: string, options: object) =>
      start(program(`../faults/${name}`, [Places.encode(place), JSON.stringify(options)]), Entry)
    return {
      drivers,
      produce: (options) =>
        Effect.gen(function* () {
          const producer = yield* run("producerProcess.ts", options)
          assert.isFalse(yield* producer.ended, "it dies")
          return producer.told
        }),
      startWorker: (options) =>
        Effect.gen(function* () {
          const worker = yield* run("workerProcess.ts", options)
          yield* worker.until((told) => told.some(({ _tag }) => _tag === "Ready"))
          const reached = worker.until((told) => told.some(({ _tag }) => _tag === "Reached"))
          return { ...worker, stop: worker.signal("SIGTERM"), died: Effect.andThen(reached, worker.ended) }
        })
    }
  })

/**
 * Workers and producers of this process over one memory. One that dies makes no call any more, and is answered none;
 * what it had underway goes on only when all is over.
 */
export const inMemory: Effect.Effect<Site> = Effect.map(makeMemoryStore, (drivers) => {
  const mortal = Effect.gen(function* () {
    const faults = new Faults()
    // a driver's hints run once at a time, and they do so for the producer
    const { hints: _, ...backend } = drivers.backend
    const apart = faults.over({
      backend: { ...backend, capabilities: { ...backend.capabilities, hints: false } },
      broker: drivers.broker
    })
    const tape = Tape.make<Entry>()
    const dead = yield* Deferred.make<void>()
    const buried = yield* Deferred.make<never>()
    const die: Die = (point) =>
      Effect.suspend(() => {
        tape.tell({ _tag: "Reached", point })
        faults.of = () => "hangs"
        Deferred.doneUnsafe(dead, Effect.void)
        return Deferred.await(buried)
      })
    const tell = (entry: Entry): void => {
      if (!Deferred.isDoneUnsafe(dead)) tape.tell(entry)
    }
    const bury = Effect.suspend(() => {
      faults.heal()
      return Deferred.die(buried, new Error("who died is buried"))
    })
    return { drivers: apart, tape, died: Deferred.await(dead), die, tell, bury }
  })
  return {
    drivers,
    produce: (options) =>
      Effect.gen(function* () {
        const { bury, die, died, drivers, tape, tell } = yield* mortal
        yield* Effect.forkScoped(DyingProducer.run(drivers, options, tell, die))
        yield* died
        yield* Effect.addFinalizer(() => bury)
        return tape.told
      }),
    startWorker: (options) =>
      Effect.gen(function* () {
        const { bury, die, died, drivers, tape, tell } = yield* mortal
        const scope = yield* Scope.fork(yield* Effect.scope)
        const shaped = options.unfused === true ? unfused(drivers) : drivers
        yield* Layer.buildWithScope(Worker.layer(shaped, options, tell, die), scope)
        yield* Effect.addFinalizer(() => bury)
        return {
          told: tape.told,
          until: tape.until,
          stop: Effect.asVoid(Effect.forkDetach(Scope.close(scope, Exit.void))),
          died
        }
      })
  }
})
