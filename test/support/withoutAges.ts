import type { QueueCounts } from "chicory/driver"

/** Returns counts of queues without the ages of their messages, which differ from run to run. */
export const withoutAges = (counts: ReadonlyArray<QueueCounts>): ReadonlyArray<QueueCounts> =>
  counts.map(({ oldestMillis: _, ...rest }) => rest)
