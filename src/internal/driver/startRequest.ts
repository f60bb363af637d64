/** The parts of start requests that are known before a message is. */
import type { Start, StartDefaults } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import * as defaults from "../defaults.ts"
import { type HandledTask, retentionOf } from "../task/TaskDefinition.ts"

/** What starts of those tasks have in common that a store may start as it gives them out. */
export const startDefaults = (
  tasks: ReadonlyMap<string, HandledTask>,
  backend: { readonly retentionMillis: number },
  leaseMillis: number
): ReadonlyArray<StartDefaults> =>
  Array.from(tasks.values(), ({ definition }) => definition)
    .filter(({ delivery }) => delivery === "at-least-once")
    .map((definition) => ({
      task: definition.name,
      leaseMillis,
      maxCrashes: definition.maxCrashes ?? defaults.maxCrashes,
      retentionMillis: retentionOf(definition, backend),
      deadLetterRetentionMillis: defaults.deadLetterRetentionMillis
    }))

/** The start of a delivery on those terms, as far as its envelope tells; `undefined` where it does not tell enough. */
export const startFromDefaults = (
  terms: ReadonlyArray<StartDefaults>,
  { body, expiresMillis, generation = 0, id, queue, task }: Delivery,
  run: Pick<Start, "token" | "worker">
): Start | undefined => {
  const known = terms.find((one) => one.task === task)
  return known === undefined || id === undefined
    ? undefined
    : { ...known, ...run, id, generation, queue, body, deliveryMode: "at-least-once", expiresMillis }
}
