/** The parts of a start request that a worker knows before it has a message. */
import type { Start, StartDefaults } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import * as defaults from "../defaults.ts"
import { type HandledTask, retentionOf } from "../task/TaskDefinition.ts"

/** Returns what the start requests of at-least-once tasks have in common, for stores that start what they claim. */
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

/** Returns the start request of a delivery by its envelope; `undefined` where the envelope does not name a task with defaults. */
export const startFromDefaults = (
  all: ReadonlyArray<StartDefaults>,
  { body, expiresMillis, generation = 0, id, queue, task }: Delivery,
  run: Pick<Start, "token" | "worker">
): Start | undefined => {
  const defaults = all.find((one) => one.task === task)
  return defaults === undefined || id === undefined
    ? undefined
    : { ...defaults, ...run, id, generation, queue, body, deliveryMode: "at-least-once", expiresMillis }
}
