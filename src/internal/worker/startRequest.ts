/** How a worker asks to start a delivery. */
import type { Start } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
import { type Definition, retentionOf } from "../task/TaskDefinition.ts"
import type { Engine } from "./WorkerState.ts"

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
  deliveryMode: definition?.delivery ?? "at-least-once",
  maxCrashes: definition?.maxCrashes ?? defaults.maxCrashes,
  expiresMillis: expires,
  retentionMillis: retentionOf(definition, engine.settings.backend),
  deadLetterRetentionMillis: defaults.deadLetterRetentionMillis
})
