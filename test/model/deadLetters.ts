import type { DeadLetter } from "../../src/BackendDriver.ts"
import type { ModelFixture } from "./modelFixture.ts"
import type * as Tasks from "./tasks.ts"

/** Returns a dead letter of the model as a store shows it, but for its order. */
export const toDeadLetter = (letter: Tasks.StoredDeadLetter): Omit<DeadLetter, "order"> => ({
  id: letter.id,
  taskId: letter.taskId,
  task: letter.task,
  incarnation: letter.incarnation,
  generation: letter.generation,
  queue: letter.queue,
  reason: letter.reason,
  exit: letter.exit,
  worker: letter.worker,
  body: letter.body,
  attempts: letter.attempts,
  at: letter.at
})

/** Returns a dead letter of the store with its time in the time of the model, and without its order. */
export const inModelTime = (
  fixture: ModelFixture,
  store: DeadLetter | undefined,
  model: Tasks.StoredDeadLetter | undefined
) => {
  if (store === undefined) return undefined
  const { order: _, ...letter } = store
  return model === undefined ? letter : { ...letter, at: fixture.toModelTime(store.at, model.at) }
}
