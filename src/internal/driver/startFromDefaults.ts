import type { Start, StartDefaults } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"

/**
 * Returns the start request of a delivery, from its envelope and the defaults of its task. Returns `undefined` if the
 * envelope has no id, or names no task that has defaults.
 *
 * **When to use**
 *
 * Use it in `fusion.claim`, to start the messages that it claims.
 *
 * @see {@link StartDefaults}
 * @category fusion
 * @since 0.1.0
 */
export const startFromDefaults = (
  defaults: ReadonlyArray<StartDefaults>,
  { body, generation = 0, id, incarnation = "", queue, task }: Delivery,
  run: Pick<Start, "token" | "worker">
): Start | undefined => {
  const found = defaults.find((one) => one.task === task)
  return found === undefined || id === undefined
    ? undefined
    : { ...found, ...run, id, incarnation, generation, queue, body, deliveryMode: "at-least-once" }
}
