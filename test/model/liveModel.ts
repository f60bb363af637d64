/** The test of a store with a clock of its own, in real time. */
import { it } from "@effect/vitest"
import { isFullRun } from "../support/fullRun.ts"
import { check, type CheckOptions } from "./check.ts"

/** Many sequences wait at the same time. */
type Options = Pick<CheckOptions, "make"> & Partial<Pick<CheckOptions, "unit" | "queues" | "concurrency">>

/** Registers the test. It plays for some seconds in the short form, and for some minutes in the full one. */
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
