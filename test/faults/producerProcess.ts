/** A producer of the fault suites in a process of its own: `producerProcess.ts <place> <options as JSON>`. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import * as Places from "../support/storeLocations.ts"
import * as DyingProducer from "./dyingProducer.ts"
import { halting } from "./killPoints.ts"
import { tell } from "./workerEvents.ts"

const place = Places.decode(process.argv[2])
const options = JSON.parse(process.argv[3] ?? "") as DyingProducer.Options

Effect.flatMap(Places.drivers(place), (drivers) =>
  DyingProducer.run(drivers, options, tell, halting(tell))
).pipe(Effect.scoped, NodeRuntime.runMain)
