import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeMemoryBackend } from "../../src/memory/MemoryBackendDriver.ts"
import { makeMemoryBroker } from "../../src/memory/MemoryBrokerDriver.ts"
import { makeMemoryDrivers } from "../../src/memory/MemoryDrivers.ts"
import { isFullRun } from "../support/fullRun.ts"
import { check } from "./check.ts"

const makeSeparate = Effect.all({ backend: makeMemoryBackend, broker: makeMemoryBroker })

describe("memory", () => {
  for (const [title, make] of [
    ["one store behaves as the model", makeMemoryDrivers],
    ["a backend and a broker apart behave as the model", makeSeparate]
  ] as const) {
    it.effect(
      title,
      () =>
        check({
          make,
          live: false,
          unit: 1000,
          queues: ["x", "y"],
          sequences: isFullRun ? 5000 : 1000,
          millis: isFullRun ? undefined : 5_000,
          commands: 80
        }),
      600_000
    )
  }
})
