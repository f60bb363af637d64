/** Tests on a memory fixture in the time of `TestClock`. */
import { it } from "@effect/vitest"
import type { Backend, Broker } from "chicory"
import { Effect, type Scope } from "effect"
import * as MemoryFixture from "./memoryFixture.ts"

export type Body = (
  on: MemoryFixture.MemoryFixture
) => Effect.fn.Return<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>

/** Registers a test whose body gets a memory fixture and its services. */
export const test = (name: string, body: Body, options?: MemoryFixture.Options): void =>
  it.effect(name, () =>
    Effect.flatMap(MemoryFixture.make(options), (on) =>
      Effect.gen(() => body(on)).pipe(Effect.provideContext(on.context))
    )
  )
