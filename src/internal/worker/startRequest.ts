/** The request of a worker to start a delivery. */
import type { Start } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
import { type TaskDefinition, retentionOf } from "../task/TaskDefinition.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Makes the start request of a delivery. `definition` is `undefined` for a task that this worker does not know. */
export const startRequest = (
  worker: WorkerState,
  { body, queue }: Delivery,
  { generation, id, incarnation = "", task }: TaskMessage.TaskMessage,
  definition: TaskDefinition | undefined,
  token = worker.nextToken()
): Start => ({
  id,
  task,
  incarnation,
  generation,
  token,
  worker: worker.id,
  queue,
  body,
  leaseMillis: worker.leaseMillis,
  deliveryMode: definition?.delivery ?? "at-least-once",
  maxCrashes: definition?.maxCrashes ?? defaults.maxCrashes,
  retentionMillis: retentionOf(definition, worker.settings.backend),
  deadLetterRetentionMillis: defaults.deadLetterRetentionMillis
})
