/** Invariants of every store, checked on its answers alone, independent of the model. */
import type { TaskRecord } from "../../src/BackendDriver.ts"

interface Known {
  /** The last fence. */
  fence: number
  /** The end of each generation as first read. */
  readonly ends: Map<number, string>
  /** The token of the accepted terminal write of each generation. */
  readonly writes: Map<number, string>
}

/** Checks the invariants of each task. */
export class StoreInvariants {
  private readonly known = new Map<string, Known>()
  private of(id: string): Known {
    const known = this.known.get(id) ?? { fence: -Infinity, ends: new Map(), writes: new Map() }
    this.known.set(id, known)
    return known
  }

  /** Clears the history of an id, whose task is removed or created again. */
  reset(id: string): void {
    this.known.delete(id)
  }

  /** Checks a record that was read; returns the violation, if there is one. */
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

  /** Checks the fence of a new run. */
  onRun(id: string, fence: number): string | undefined {
    const known = this.of(id)
    const before = known.fence
    known.fence = fence
    return fence > before ? undefined : `a run of ${id} has fence ${fence}, after one with ${before}`
  }

  /** Checks an accepted terminal write. */
  onTerminalWrite(id: string, generation: number, token: string): string | undefined {
    const { writes } = this.of(id)
    const before = writes.get(generation)
    writes.set(generation, token)
    return before === undefined || before === token
      ? undefined
      : `${id} was ended by ${token}, after it had been ended by ${before}`
  }
}
