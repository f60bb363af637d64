/** The drain timeout of a worker whose options have none. `Testing.layer` sets it to 0. */
import { Context, type Duration } from "effect"
import * as defaults from "./defaults.ts"

export const DefaultDrainTimeout = Context.Reference<Duration.Duration>("chicory/DefaultDrainTimeout", {
  defaultValue: () => defaults.drainTimeout
})
