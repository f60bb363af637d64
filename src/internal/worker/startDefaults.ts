/** The part of a start request that all starts of a task have in common. */
import type { StartDefaults } from "../../BackendDriver.ts"
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
