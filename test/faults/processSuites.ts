/** The process suites of every store. */
import { Effect, type Scope } from "effect"
import type { StoreLocation } from "../support/storeLocations.ts"
import * as ClockSuite from "./clockSuite.ts"
import * as Deployments from "./deployments.ts"
import * as FrozenSuite from "./frozenSuite.ts"
import * as KillSuite from "./killSuite.ts"

/** Long enough for a slow machine to renew it in time. */
const LEASE = 2_000

type Temporary = Effect.Effect<StoreLocation, unknown, Scope.Scope>

/**
 * Registers the tests, each in its own location; those with frozen workers where a short heartbeat notices their
 * silence.
 */
export const suite = (
  name: string,
  temporaryLocation: Temporary,
  shortHeartbeatLocation = temporaryLocation
): void => {
  const makeDeployment = Effect.flatMap(temporaryLocation, Deployments.ofLocation)
  KillSuite.suite(name, makeDeployment, {
    leaseMillis: LEASE,
    points: ["in the handler", "after the result is stored"]
  })
  FrozenSuite.suite(name, Effect.flatMap(shortHeartbeatLocation, Deployments.ofLocation), LEASE)
  ClockSuite.suite(makeDeployment, LEASE)
}
