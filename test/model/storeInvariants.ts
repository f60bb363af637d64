/**
 * What holds of every store, in words of its own: judged by what the store said alone, whatever the model says.
 */
import type { TaskRecord } from "../../src/BackendDriver.ts"

interface Known {
  /** The last fence. */
  fence: number
  /** The end of each generation, as it was first seen. */
  readonly ends: Map<number, string>
  /** The token of the terminal write that was accepted in each generation. */
  readonly writes: Map<number, string>
}

/** What was seen of each task. */
export class StoreInvariants {
  private readonly known = new Map<string, Known>()
  /** Tasks whose enqueue was answered, and that nobody has forgotten since. */
  readonly accepted = new Set<string>()

  private of(id: string): Known {
    const known = this.known.get(id) ?? { fence: -Infinity, ends: new Map(), writes: new Map() }
    this.known.set(id, known)
    return known
  }

  /** There is another task of that id from now on, or none. */
  reset(id: string): void {
    this.known.delete(id)
  }

  /** A record was read. Answers what is wrong, if something is. */
  onRead(id: string, record: TaskRecord | undefined): string | undefined {
    if (record === undefined) {
      this.reset(id)
      return undefined
    }
    const { ends } = this.of(id)
    const { exit, finishedAt, generation, state } = record
    const isFinal = state === "SUCCESS" || state === "FAILURE"
    const end = isFinal ? JSON.stringify([state, exit, record.ended, finishedAt]) : "no end"
    const before = ends.get(generation)
    if (before !== undefined && before !== end) {
      return `${id} had ended in generation ${generation} with ${before}, and now has ${end}`
    }
    if (isFinal) ends.set(generation, end)
    return undefined
  }

  /** A run was granted, for the first time. */
  onRun(id: string, fence: number): string | undefined {
    const known = this.of(id)
    const before = known.fence
    known.fence = fence
    return fence > before ? undefined : `a run of ${id} has fence ${fence}, after one with ${before}`
  }

  /** A terminal write was accepted. */
  onTerminalWrite(id: string, generation: number, token: string): string | undefined {
    const { writes } = this.of(id)
    const before = writes.get(generation)
    writes.set(generation, token)
    return before === undefined || before === token
      ? undefined
      : `${id} was ended by ${token}, after it had been ended by ${before}`
  }
}
