/** The gauges of the messages in a queue. */
import { type Context, Metric } from "effect"
import type { QueueCounts } from "../../BrokerDriver.ts"
import type * as metrics from "../metrics.ts"

type Gauges = ReturnType<typeof metrics.forDepth>

/** Sets the gauges of a queue, and removes those of what is not known. */
export const set = (
  { oldestAge, ...states }: Gauges,
  { oldestMillis, ...counts }: QueueCounts,
  context: Context.Context<never>
): void => {
  const setOne = (gauge: Metric.Gauge<number>, value: number | undefined) =>
    value === undefined ? Metric.removeUnsafe(gauge, context) : gauge.updateUnsafe(value, context)
  setOne(states.ready, counts.ready)
  setOne(states.delayed, counts.delayed)
  setOne(states.claimed, counts.claimed)
  setOne(states.setAside, counts.setAside)
  setOne(states.parked, counts.parked)
  setOne(oldestAge, oldestMillis === undefined ? undefined : oldestMillis / 1000)
}

/** Removes the gauges of a queue. */
export const remove = (gauges: Gauges, context: Context.Context<never>): void =>
  Object.values(gauges).forEach((metric) => Metric.removeUnsafe(metric, context))
