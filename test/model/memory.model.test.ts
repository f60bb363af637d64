import { describe, it } from "@effect/vitest"
import { makeMemoryDrivers } from "../../src/memory/MemoryDrivers.ts"
import { isFullRun } from "../support/fullRun.ts"
import { check } from "./check.ts"

describe("memory", () => {
  it.effect(
    "behaves as the model",
    () =>
      check({
        make: makeMemoryDrivers,
        live: false,
        unit: 1000,
        queues: ["x", "y"],
        sequences: isFullRun ? 5000 : 500,
        millis: isFullRun ? undefined : 8_000,
        commands: 80
      }),
    600_000
  )
})
