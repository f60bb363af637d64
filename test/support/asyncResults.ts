/** Handles of tasks on a memory fixture, and a backend whose reads fail. */
import { AsyncResult } from "chicory"
import type { BackendDriver } from "chicory/driver"
import { Effect, Schema } from "effect"
import type * as MemoryFixture from "./memoryFixture.ts"

const schemas = { success: Schema.Number, error: Schema.String, progress: Schema.Number }

/** A handle with schemas for the task of that id. */
export const handle = (id = "a") => AsyncResult.make(id, schemas)

/** Why a read fails; outages are numbered. */
export class Outage extends Schema.TaggedError<Outage>()("Outage", { number: Schema.Number }) {}

/** Options of a fixture whose reads and subscriptions fail while `down` returns true. */
export const unreliable = (down: () => boolean, hints: boolean, permanent = false): MemoryFixture.Options => {
  let outages = 0
  const failing =
    (operation: BackendDriver["read"]): BackendDriver["read"] =>
    (ids) =>
      down() ? Effect.fail(new Outage({ number: ++outages })) : operation(ids)
  return {
    hints,
    backend: (driver) => ({
      read: failing(driver.read),
      subscribe: failing(driver.subscribe),
      isPermanent: () => permanent
    })
  }
}
