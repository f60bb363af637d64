/** The dead letters of the memory store. */
import type { DeadLetter, DeadLetterQuery, ParkedMessage } from "../BackendDriver.ts"
import { Heap } from "../internal/concurrency/Heap.ts"
import { type Expiring, isSooner, timeAfter } from "./Expiring.ts"

/** A dead letter and what the replay of its task needs. */
export interface StoredDeadLetter extends Expiring {
  readonly letter: DeadLetter
  /** The fence of the task, for a record that is gone when the dead letter is replayed. */
  readonly fence: number
  /** The retention of the task, for the same. */
  readonly taskRetention: number | undefined
}

export class MemoryDeadLetters {
  /** The oldest first. */
  private readonly byId = new Map<string, StoredDeadLetter>()
  private readonly deadlines = new Heap<StoredDeadLetter>(isSooner)
  private readonly onDue: (at: number) => void
  private added = 0

  /** `onDue` is called with the time when the retention of a dead letter is going to be over. */
  constructor(onDue: (at: number) => void) {
    this.onDue = onDue
  }

  /** The time when the first retention is over. */
  get nextDueAt(): number {
    return this.deadlines.peek()?.deadline ?? Infinity
  }

  /** Adds a dead letter in place of one with the same id. */
  add(
    letter: Omit<DeadLetter, "order">,
    retention: number | undefined,
    task: { readonly fence: number; readonly retention: number | undefined }
  ): void {
    const older = this.byId.get(letter.id)
    if (older !== undefined) this.drop(older)
    const entry: StoredDeadLetter = {
      letter: { ...letter, order: ++this.added },
      fence: task.fence,
      taskRetention: task.retention,
      deadline: timeAfter(letter.at, retention),
      position: -1
    }
    this.byId.set(letter.id, entry)
    if (entry.deadline === Infinity) return
    this.deadlines.push(entry)
    this.onDue(entry.deadline)
  }

  /** Parks a message that no run can be made of, unless it is parked already. */
  park(message: ParkedMessage, now: number): void {
    const { body, deadLetterId: id, exit, queue, reason } = message
    if (this.get(id, now) !== undefined) return
    this.add(
      {
        id,
        taskId: null,
        task: null,
        incarnation: "",
        generation: 0,
        queue,
        reason,
        exit,
        worker: null,
        body,
        attempts: 0,
        at: now
      },
      message.retentionMillis,
      { fence: 0, retention: undefined }
    )
  }

  /** Returns a dead letter whose retention is not over. */
  get(id: string, now: number): StoredDeadLetter | undefined {
    const entry = this.byId.get(id)
    return entry === undefined || entry.deadline <= now ? undefined : entry
  }

  /** Lists a page, the newest first: in the reverse order of writing, whatever the clocks of the writers said. */
  list({ after, limit, task }: DeadLetterQuery, now: number): ReadonlyArray<DeadLetter> {
    const page: Array<DeadLetter> = []
    const before = after?.order ?? Infinity
    for (const { deadline, letter } of Array.from(this.byId.values()).reverse()) {
      if (page.length >= limit) break
      if (letter.order < before && deadline > now && (task === undefined || letter.task === task))
        page.push(letter)
    }
    return page
  }

  count(task: string | undefined, now: number): number {
    let count = 0
    for (const { deadline, letter } of this.byId.values()) {
      if (deadline > now && (task === undefined || letter.task === task)) count++
    }
    return count
  }

  /** Removes a dead letter and returns whether it was there. */
  remove(id: string, now: number): boolean {
    const entry = this.get(id, now)
    if (entry === undefined) return false
    this.drop(entry)
    return true
  }

  /** Removes up to `limit` dead letters whose retention is over, and returns how many. */
  sweep(limit: number, now: number): number {
    let swept = 0
    for (; swept < limit; swept++) {
      const entry = this.deadlines.peek()
      if (entry === undefined || entry.deadline > now) break
      this.drop(entry)
    }
    return swept
  }

  private drop(entry: StoredDeadLetter): void {
    this.deadlines.remove(entry)
    this.byId.delete(entry.letter.id)
  }
}
