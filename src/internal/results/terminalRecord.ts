/** The last record of a task that has ended. */
import type { TaskRecord } from "../../BackendDriver.ts"
import { isTerminal } from "../../TaskState.ts"

/** A task that has ended, or whose record was removed during the wait (`forgotten`). */
export interface TerminalRecord {
  readonly record: TaskRecord
  readonly forgotten: boolean
}

/** Returns the end of a task that a read shows, with the record of the read before; `undefined`: it has not ended. */
export const terminalOf = (
  before: TaskRecord | undefined,
  read: TaskRecord | undefined
): TerminalRecord | undefined => {
  // a record of another enqueue of the id takes the place of one that was removed
  const record = before !== undefined && read?.incarnation !== before.incarnation ? undefined : read
  const forgotten = record === undefined ? before !== undefined : record.ended === "Forgotten"
  const known = record ?? before
  return known !== undefined && (forgotten || isTerminal(known.state))
    ? { record: known, forgotten }
    : undefined
}
