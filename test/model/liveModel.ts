/** Model test of a store with its own clock, in real time. */
import { it } from "@effect/vitest"
import { isFullRun } from "../support/fullRun.ts"
import { check, type CheckOptions } from "./check.ts"

/** The store, and settings that differ from the defaults. */
type Options = Pick<CheckOptions, "make"> & Partial<Pick<CheckOptions, "unit" | "queues" | "concurrency">>

/** Registers the test, which runs for 10 seconds in the short form and 2 minutes in the full form. */
export const testLive = (options: Options): void =>
  it.live(
    "behaves as the model",
    () =>
      check({
        live: true,
        unit: 400,
        queues: ["x", "y"],
        commands: 40,
        concurrency: 4,
        ...options,
        sequences: 1000,
        millis: isFullRun ? 120_000 : 10_000
      }),
    { timeout: 600_000 }
  )
