/** Makes one health of all workers of a layer. */
import { Effect, Layer, type Scope } from "effect"
import * as Worker from "../Worker.ts"

/** The worst first. */
const codes: ReadonlyArray<Worker.HealthCode> = [
  "LoopEnded",
  "Stuck",
  "BrokerAway",
  "BackendAway",
  "Draining",
  "Starting",
  "Ready"
]

const starting: Worker.Health = { live: true, ready: false, code: "Starting" }

/** Returns the health of a process with several workers: it is as live and as ready as the worst of them. */
const worst = (healths: ReadonlyArray<Worker.Health>): Worker.Health =>
  healths.reduce((one, other) => (codes.indexOf(other.code) < codes.indexOf(one.code) ? other : one))

/**
 * Runs `publish` for the health of all workers that the layer starts, from before they start until they have stopped. The
 * health is `Starting` until the whole layer is built.
 */
export const collectWorkers = <Workers extends Layer.Layer<Worker.Worker, unknown, unknown>, E, R>(
  workers: Workers,
  publish: (health: Effect.Effect<Worker.Health>) => Effect.Effect<void, E, R>
): Layer.Layer<
  Layer.Success<Workers>,
  Layer.Error<Workers> | E,
  Layer.Services<Workers> | Exclude<R, Scope.Scope>
> =>
  Layer.unwrap(
    Effect.flatMap(Worker.StartedWorkers, (onStartedOutside) => {
      const started: Array<Worker.Worker["Service"]> = []
      const onStarted = (worker: Worker.Worker["Service"]) => {
        started.push(worker)
        // probes of another kind around these
        onStartedOutside?.(worker)
      }
      let isStarted = false
      const health = Effect.suspend(() =>
        isStarted && started.length > 0
          ? Effect.map(Effect.all(started.map((worker) => worker.health)), worst)
          : Effect.succeed(starting)
      )
      const whenStarted = Layer.effectDiscard(
        Effect.sync(() => {
          isStarted = true
        })
      )
      const collected = whenStarted.pipe(
        Layer.provideMerge(workers),
        Layer.provide(Layer.succeed(Worker.StartedWorkers, onStarted))
      ) as Layer.Layer<Layer.Success<Workers>, Layer.Error<Workers>, Layer.Services<Workers>>
      return Effect.as(publish(health), collected)
    })
  )
