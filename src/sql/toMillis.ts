import { wholeMillis } from "../internal/millis.ts"

/** Returns whole milliseconds for a column; `null` for a duration that is not given. */
export const toMillis = (duration: number | undefined): number | null =>
  duration === undefined ? null : wholeMillis(duration)
