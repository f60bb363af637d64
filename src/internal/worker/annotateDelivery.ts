/** Annotates the log lines of a worker with the task that they are about. */
import { Effect } from "effect"
import type { Delivery } from "../../BrokerDriver.ts"

/** Adds the task's id and name, the queue and the attempt to every log line of an effect, as far as they are known. */
export const annotateDelivery =
  ({ id, queue, task }: Pick<Delivery, "id" | "queue" | "task">, attempt?: number) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.annotateLogs(effect, {
      ...(id === undefined ? {} : { taskId: id }),
      ...(task === undefined ? {} : { taskName: task }),
      queue,
      ...(attempt === undefined ? {} : { attempt })
    })
