/**
 * What the library promises of enqueues, whatever the rules are by which stores keep it: no message runs under the record
 * of another enqueue, no task runs after its end, and no accepted task is lost.
 */

/** An enqueue. A producer that starts over continues it. */
export interface Enqueue {
  readonly id: string
  readonly payload: string
}

export class Promises {
  /** The enqueue of the record of each id. It stays when the record is gone. */
  private readonly owners = new Map<string, Enqueue>()
  /** The last generation in which an enqueue ended. */
  private readonly ends = new Map<Enqueue, number>()
  /** Enqueues whose producers or operators were told that they are accepted, and the last generation in which. */
  private readonly accepted = new Map<Enqueue, number>()
  /** Enqueues whose record a replay created, so that it does not know their payload (E3). */
  private readonly unknown = new Set<Enqueue>()
  /** Enqueues that users have given up: forgotten or purged. */
  private readonly givenUp = new Set<Enqueue>()

  ownerOf(id: string): Enqueue | undefined {
    return this.owners.get(id)
  }

  /**
   * A record was created. It may be that of an enqueue that ended before: its producer or its worker stood still for so
   * long that the first record was gone.
   */
  recordCreated(id: string, enqueue: Enqueue): void {
    this.owners.set(id, enqueue)
    this.ends.delete(enqueue)
    if (this.accepted.has(enqueue)) this.accepted.set(enqueue, 0)
  }

  /** A replay opened a generation of a task, whose record it created if there was none. */
  reopened(id: string, enqueue: Enqueue, generation: number, created: boolean): void {
    if (created) this.unknown.add(enqueue)
    this.owners.set(id, enqueue)
    const end = this.ends.get(enqueue)
    if (end !== undefined && end >= generation) this.ends.set(enqueue, generation - 1)
  }

  /** A task ended, in any way. */
  ended(id: string, generation: number): void {
    const enqueue = this.owners.get(id)
    if (enqueue !== undefined) this.ends.set(enqueue, Math.max(generation, this.ends.get(enqueue) ?? 0))
  }

  /** A producer was told that an enqueue is accepted, or an operator that it is replayed. */
  accept(enqueue: Enqueue, generation: number): void {
    this.accepted.set(enqueue, Math.max(generation, this.accepted.get(enqueue) ?? 0))
  }

  /** A producer was told that its enqueue is an earlier one; returns the violation, if there is one. */
  onFound(asked: Enqueue, found: Enqueue): string | undefined {
    return asked.payload === found.payload || this.unknown.has(found)
      ? undefined
      : `an enqueue with payload ${asked.payload} was taken for that of ${found.id} with payload ${found.payload}`
  }

  giveUp(enqueue: Enqueue): void {
    this.givenUp.add(enqueue)
  }

  /** A message was allowed to run; returns the violation, if there is one. */
  onRun(id: string, generation: number, enqueue: Enqueue): string | undefined {
    if (this.owners.get(id) !== enqueue) return `a message of ${id} runs under the record of another enqueue`
    const end = this.ends.get(enqueue)
    return end !== undefined && end >= generation
      ? `${id} runs in generation ${generation}, after it had ended in generation ${end}`
      : undefined
  }

  /** Returns the accepted enqueues that have not ended in their generation, and that no user has given up. */
  get lost(): ReadonlyArray<Enqueue> {
    return [...this.accepted].flatMap(([enqueue, generation]) =>
      (this.ends.get(enqueue) ?? -1) < generation && !this.givenUp.has(enqueue) ? [enqueue] : []
    )
  }
}
