/**
 * The tasks to which this process is subscribed on the server, so that no other subscriptions are ended there. A task that has
 * ended has no subscribers.
 */
import type { NewRecord, TaskRecord } from "../BackendDriver.ts"
import { isTerminal } from "../TaskState.ts"

/** The subscriptions of one process. */
export class ServerSubscriptions {
  private readonly ids = new Set<string>()

  add(ids: Iterable<string>): void {
    for (const id of ids) this.ids.add(id)
  }

  /** Adds the records that are created with a subscription. */
  addCreated(records: ReadonlyArray<NewRecord>): void {
    for (const { id, subscribe } of records) if (subscribe === true) this.ids.add(id)
  }

  /** Removes a task, and returns whether the process was subscribed to it. */
  remove(id: string): boolean {
    return this.ids.delete(id)
  }

  /** Removes the tasks that have ended. */
  removeEnded(records: ReadonlyArray<TaskRecord | undefined>): void {
    for (const record of records) {
      if (record !== undefined && isTerminal(record.state)) this.ids.delete(record.id)
    }
  }

  /** Forgets all of them: the facade subscribes anew to whatever it waits for. */
  clear(): void {
    this.ids.clear()
  }
}
