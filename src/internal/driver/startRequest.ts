/** How a delivery asks to run. */
import { Duration } from "effect"
import type { Start, StartDefaults } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
import { type Definition, retentionOf } from "../task/TaskDefinition.ts"
import type { Engine, Settings } from "../worker/WorkerState.ts"

const letterRetentionMillis = Duration.toMillis(defaults.letterRetention)

/** The request of a delivery; without a definition its task is not known here. */
export const startOf = (
  engine: Engine,
  { body, queue }: Delivery,
  { expires, generation, id, task }: Pick<TaskMessage.TaskMessage, "id" | "task" | "generation" | "expires">,
  definition: Definition | undefined,
  token = engine.nextToken()
): Start => ({
  id,
  task,
  generation,
  token,
  worker: engine.id,
  queue,
  body,
  leaseMillis: engine.leaseMillis,
  delivery: definition?.delivery ?? "at-least-once",
  maxCrashes: definition?.maxCrashes ?? defaults.maxCrashes,
  expiresMillis: expires,
  retentionMillis: retentionOf(definition, engine.settings.backend),
  letterRetentionMillis
})

/** What starts of those tasks have in common that a store may start as it gives them out. */
export const termsOf = (
  { backend, tasks }: Pick<Settings, "backend" | "tasks">,
  leaseMillis: number
): ReadonlyArray<StartDefaults> =>
  Array.from(tasks.values(), ({ definition }) => definition)
    .filter(({ delivery }) => delivery === "at-least-once")
    .map((definition) => ({
      task: definition.name,
      leaseMillis,
      maxCrashes: definition.maxCrashes ?? defaults.maxCrashes,
      retentionMillis: retentionOf(definition, backend),
      letterRetentionMillis
    }))

/** The start of a delivery on those terms, as far as its envelope tells; `undefined` where it does not tell enough. */
export const startOnTerms = (
  terms: ReadonlyArray<StartDefaults>,
  { body, expiresMillis, generation = 0, id, queue, task }: Delivery,
  run: Pick<Start, "token" | "worker">
): Start | undefined => {
  const known = terms.find((one) => one.task === task)
  return known === undefined || id === undefined
    ? undefined
    : { ...known, ...run, id, generation, queue, body, delivery: "at-least-once", expiresMillis }
}
