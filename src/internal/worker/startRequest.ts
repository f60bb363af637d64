/** How a worker asks to start a delivery. */
import type { Start } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
import { type TaskDefinition, retentionOf } from "../task/TaskDefinition.ts"
import type { WorkerState } from "./WorkerState.ts"

/** The request of a delivery; without a definition its task is not known here. */
export const startRequest = (
  worker: WorkerState,
  { body, queue }: Delivery,
  { expires, generation, id, task }: Pick<TaskMessage.TaskMessage, "id" | "task" | "generation" | "expires">,
  definition: TaskDefinition | undefined,
  token = worker.nextToken()
): Start => ({
  id,
  task,
  generation,
  token,
  worker: worker.id,
  queue,
  body,
  leaseMillis: worker.leaseMillis,
  deliveryMode: definition?.delivery ?? "at-least-once",
  maxCrashes: definition?.maxCrashes ?? defaults.maxCrashes,
  expiresMillis: expires,
  retentionMillis: retentionOf(definition, worker.settings.backend),
  deadLetterRetentionMillis: defaults.deadLetterRetentionMillis
})
