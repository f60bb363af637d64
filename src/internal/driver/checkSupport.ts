/** Compares what tasks ask for with what their stores support. */
import { Duration } from "effect"
import type { EnqueueOptions } from "../../EnqueueOptions.ts"
import { durationOrZero, wholeNumber } from "../options.ts"
import type { TaskDefinition } from "../task/TaskDefinition.ts"
import type { BackendService } from "./BackendService.ts"
import type { BrokerService } from "./BrokerService.ts"

/** Returns what a message with that priority and delay asks for, and the broker does not support. */
export const unsupportedFeature = (
  { maxDelayMillis, priorities }: BrokerService["capabilities"],
  priority: number | undefined,
  delayMillis: number
): string | undefined => {
  if (priorities === 1 && priority !== undefined) return "priorities"
  return delayMillis > maxDelayMillis ? `a delay of more than ${maxDelayMillis} milliseconds` : undefined
}

/** The stores of a program. */
interface Stores {
  readonly backend: Pick<BackendService, "configured">
  readonly broker: Pick<BrokerService, "capabilities" | "name">
}

/**
 * Throws where the stores lack what tasks, or calls with these options, ask for, with the names of the tasks and of the
 * broker.
 */
export const checkSupport = (
  caller: string,
  definitions: Iterable<TaskDefinition>,
  { backend, broker }: Stores,
  options: Pick<EnqueueOptions, "delay" | "priority"> = {}
): void => {
  const priority =
    options.priority === undefined ? undefined : wholeNumber(`${caller}: priority`, options.priority, 0, 255)
  const delayMillis = Duration.toMillis(durationOrZero(`${caller}: delay`, options.delay ?? 0))
  const lacks = new Map<string, Array<string>>()
  const add = (lack: string, task: string) => {
    const tasks = lacks.get(lack)
    if (tasks === undefined) lacks.set(lack, [task])
    else tasks.push(task)
  }
  for (const definition of definitions) {
    const feature = unsupportedFeature(broker.capabilities, priority ?? definition.priority, delayMillis)
    if (feature !== undefined) add(`the ${broker.name} broker does not support ${feature}`, definition.name)
    if (definition.idempotencyKey !== undefined && !backend.configured) {
      add("without a backend there are no idempotency keys", definition.name)
    }
  }
  if (lacks.size === 0) return
  const texts = Array.from(lacks, ([lack, tasks]) => {
    const names = tasks.map((name) => `"${name}"`).join(", ")
    return `${lack}, which the ${tasks.length === 1 ? `task ${names} asks` : `tasks ${names} ask`} for`
  })
  throw new RangeError(`${caller}: ${texts.join("; ")}`)
}
