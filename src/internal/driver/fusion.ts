/** When a backend and a broker are the same store, two steps of the engine can be one of the store. */
import type { Backend, FusedService } from "../../Backend.ts"
import type { Broker } from "../../Broker.ts"

/** The fused operations of a pairing, if it has them. */
export const fusionOf = (pairing: {
  readonly backend: Backend["Service"]
  readonly broker: Broker["Service"]
}): FusedService | undefined => {
  const { fusion } = pairing.backend
  return fusion !== undefined && fusion.store === pairing.broker.store ? fusion : undefined
}
