import type { DeadLetter } from "../../src/BackendDriver.ts"
import type { ModelFixture } from "./modelFixture.ts"
import type * as Tasks from "./tasks.ts"

/** Returns a dead letter of the model as a store shows it. */
export const toDeadLetter = (letter: Tasks.StoredDeadLetter): DeadLetter => ({
  id: letter.id,
  taskId: letter.taskId,
  task: letter.task,
  generation: letter.generation,
  queue: letter.queue,
  reason: letter.reason,
  exit: letter.exit,
  worker: letter.worker,
  body: letter.body,
  attempts: letter.attempts,
  at: letter.at
})

/** Returns a dead letter of the store with its time in the time of the model. */
export const inModelTime = (
  fixture: ModelFixture,
  store: DeadLetter | undefined,
  model: Tasks.StoredDeadLetter | undefined
) =>
  store === undefined || model === undefined
    ? store
    : { ...store, at: fixture.toModelTime(store.at, model.at) }
