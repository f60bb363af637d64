/** What a settlement means for the message of the run, in stores that settle and ack in one step. */
import type { Settled, Settlement } from "../../BackendDriver.ts"

/** Returns after how many milliseconds the message is delivered again; `undefined`: it is acked. */
export const redeliveryDelay = ({ outcome }: Settlement, settled: Settled): number | undefined => {
  if (settled === "Cancelled") return undefined
  if (outcome._tag === "Retry") return outcome.afterMillis
  return outcome._tag === "Release" ? 0 : undefined
}
