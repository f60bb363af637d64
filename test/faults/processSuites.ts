/** What is asked of processes on every store. */
import { Effect, type Scope } from "effect"
import type { Place } from "../support/storeLocations.ts"
import * as ClockSuite from "./clockSuite.ts"
import * as Sites from "./deployments.ts"
import * as FrozenSuite from "./frozenSuite.ts"
import * as KillSuite from "./killSuite.ts"

/** Long enough for a slow machine to renew it in time. */
const LEASE = 2_000

type Temporary = Effect.Effect<Place, unknown, Scope.Scope>

/** Registers the tests, each in a place of its own, those with frozen workers where their silence is noticed. */
export const suite = (name: string, temporaryPlace: Temporary, impatientPlace = temporaryPlace): void => {
  const makeSite = Effect.flatMap(temporaryPlace, Sites.ofPlace)
  KillSuite.suite(name, makeSite, {
    leaseMillis: LEASE,
    points: ["in the handler", "after the result is stored"]
  })
  FrozenSuite.suite(name, Effect.flatMap(impatientPlace, Sites.ofPlace), LEASE)
  ClockSuite.suite(makeSite, LEASE)
}
