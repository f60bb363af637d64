/** What follows a settlement for its message, in a store that does both in one step. */
import type { Settled, Settlement } from "../../BackendDriver.ts"

/** How long a message waits that is put back; `undefined`: the message goes. */
export const redeliveryDelay = ({ outcome }: Settlement, settled: Settled): number | undefined => {
  if (settled === "Cancelled") return undefined
  if (outcome._tag === "Retry") return outcome.afterMillis
  return outcome._tag === "Release" ? 0 : undefined
}
