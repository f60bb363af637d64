/** A producer process of the fault suites: `producerProcess.ts <location> <options as JSON>`. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import * as DyingProducer from "./dyingProducer.ts"
import { halting } from "./killPoints.ts"
import { emit } from "./workerEvents.ts"

const location = StoreLocations.decode(process.argv[2])
const options = JSON.parse(process.argv[3] ?? "") as DyingProducer.Options

Effect.flatMap(StoreLocations.drivers(location), (drivers) =>
  DyingProducer.run(drivers, options, emit, halting(emit))
).pipe(Effect.scoped, NodeRuntime.runMain)
