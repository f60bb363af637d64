/** The largest value that the stores of a call take. */
import * as defaults from "../defaults.ts"
import type { BackendService } from "./BackendService.ts"
import type { BrokerService } from "./BrokerService.ts"

/** Returns the most bytes of an encoded value: the cap that holds for all tasks, or less where a store takes less. */
export const maxBytesOf = (
  backend: Pick<BackendService, "capabilities">,
  broker?: Pick<BrokerService, "capabilities">
): number =>
  Math.min(
    defaults.maxBytes,
    backend.capabilities.maxBytes ?? Infinity,
    broker?.capabilities.maxBytes ?? Infinity
  )
