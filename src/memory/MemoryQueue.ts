/** A queue of the memory store: its messages by what they wait for, and the workers that wait for messages. */
import { Clock, Duration, Effect, Latch } from "effect"
import type { Envelope, QueueCounts } from "../BrokerDriver.ts"
import { Heap, type Member } from "../internal/concurrency/Heap.ts"

/** A message in one of the heaps of its queue. */
export interface Message extends Member {
  readonly envelope: Envelope
  readonly queue: MemoryQueue
  /** Counts up in the order of publishing. */
  readonly order: number
  body: string
  /** When the message became due: its place in the order of claims. */
  dueAt: number
  /** The time from which the age of the message is counted. */
  waitsSince: number
  /** When the message may be claimed (again): when its delay or its lease is over. */
  wakeAt: number
  /** The handle of the last claim; it stays after the lease is over, until the message is claimed again. */
  handle: string | undefined
  heap: Heap<Message>
}

/** Whether a message is claimed before another: by priority, then by due time, then by order. */
export const isClaimedBefore = (self: Message, that: Message): boolean => {
  const [mine, other] = [self.envelope.priority, that.envelope.priority]
  if (mine !== other) return mine > other
  return self.dueAt < that.dueAt || (self.dueAt === that.dueAt && self.order < that.order)
}

const wakesBefore = (self: Message, that: Message): boolean => self.wakeAt < that.wakeAt

/** A worker that waits for messages of one or more queues. */
export class MessageWaiter {
  /** There were changes that were not emitted yet. */
  hinted = true
  /** Until when the worker sleeps. */
  sleepsUntil = Infinity
  readonly latch = Latch.makeUnsafe(false)

  hint(): void {
    this.hinted = true
    this.latch.openUnsafe()
  }

  /** Makes a sleeping worker look again, if it would sleep past that time. */
  wakeBy(at: number): void {
    if (this.sleepsUntil > at) this.latch.openUnsafe()
  }

  /** Waits until there may be messages in the queues. */
  await(queues: ReadonlyArray<MemoryQueue>): Effect.Effect<void> {
    return Clock.clockWith((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      // closed before the scan, so that what happens during it wakes the worker
      this.latch.closeUnsafe()
      this.sleepsUntil = Infinity
      for (const queue of queues) {
        queue.promote(now)
        this.sleepsUntil = Math.min(this.sleepsUntil, queue.nextWakeAt)
      }
      if (this.hinted) {
        this.hinted = false
        return Effect.void
      }
      const woken =
        this.sleepsUntil === Infinity
          ? this.latch.await
          : Effect.raceFirst(this.latch.await, clock.sleep(Duration.millis(this.sleepsUntil - now)))
      // the latch resumes its waiters inside an operation; the rest of the turn belongs to the same hint
      return Effect.andThen(Effect.andThen(woken, Effect.yieldNow), this.await(queues))
    })
  }
}

export class MemoryQueue {
  readonly name: string
  /** In the order in which messages are claimed. */
  readonly ready = new Heap<Message>(isClaimedBefore)
  /** In the order in which messages become due. */
  readonly delayed = new Heap<Message>(wakesBefore)
  /** In the order in which leases end. */
  readonly claimed = new Heap<Message>(wakesBefore)
  /** Messages that claims have set aside, by their tasks, each in the order in which they are claimed. None is empty. */
  readonly setAside = new Map<string, Heap<Message>>()
  readonly waiters = new Set<MessageWaiter>()
  private readonly delayedByTask = new Map<string, Message>()

  constructor(name: string) {
    this.name = name
  }

  counts(now: number): QueueCounts {
    let oldest = now
    for (const { dueAt } of this.ready) oldest = Math.min(oldest, dueAt)
    let setAside = 0
    for (const { size } of this.setAside.values()) setAside += size
    return {
      ready: this.ready.size,
      delayed: this.delayed.size,
      claimed: this.claimed.size,
      ...(setAside > 0 && { setAside }),
      oldestMillis: now - oldest
    }
  }

  /** Returns the first message to claim for a worker that knows these tasks, or whose tasks are not known. */
  first(tasks: ReadonlySet<string> | undefined): Message | undefined {
    let first = this.ready.peek()
    if (tasks === undefined || this.setAside.size === 0) return first
    for (const [task, heap] of this.setAside) {
      const message = tasks.has(task) ? heap.peek() : undefined
      if (message !== undefined && (first === undefined || isClaimedBefore(message, first))) first = message
    }
    return first
  }

  /** Moves a message out of the way of claims by workers that do not know its task. */
  putAside(message: Message): void {
    const { task } = message.envelope
    let heap = this.setAside.get(task)
    if (heap === undefined) this.setAside.set(task, (heap = new Heap(isClaimedBefore)))
    this.move(message, heap)
  }

  /** The time at which the next delay or lease is over. */
  get nextWakeAt(): number {
    return Math.min(this.delayed.peek()?.wakeAt ?? Infinity, this.claimed.peek()?.wakeAt ?? Infinity)
  }

  /** Makes a message ready or delayed, by its time. */
  put(message: Message, now: number): void {
    this.move(message, message.wakeAt > now ? this.delayed : this.ready)
    this.hint()
  }

  /** Hints that the messages of the queue changed. */
  hint(): void {
    for (const waiter of this.waiters) waiter.hint()
  }

  /** Moves a message to the claimed ones, until its lease is over. */
  claim(message: Message): void {
    this.move(message, this.claimed)
    for (const waiter of this.waiters) waiter.wakeBy(message.wakeAt)
  }

  /** Makes ready what became due. A claim whose lease is over keeps its handle until another claim takes the message. */
  promote(now: number): void {
    let promoted = false
    for (const heap of [this.delayed, this.claimed]) {
      for (;;) {
        const message = heap.peek()
        if (message === undefined || message.wakeAt > now) break
        this.move(message, this.ready)
        promoted = true
      }
    }
    if (promoted) this.hint()
  }

  /** Returns the message of a task that is not due yet: of several, the last. */
  delayedOf(taskId: string): Message | undefined {
    return this.delayedByTask.get(taskId)
  }

  /** Removes a message, wherever it is. */
  remove(message: Message): void {
    message.heap.remove(message)
    const { id, task } = message.envelope
    if (message.heap.size === 0 && this.setAside.get(task) === message.heap) this.setAside.delete(task)
    if (this.delayedByTask.get(id) === message) this.delayedByTask.delete(id)
  }

  private move(message: Message, heap: Heap<Message>): void {
    this.remove(message)
    message.heap = heap
    heap.push(message)
    if (heap === this.delayed) this.delayedByTask.set(message.envelope.id, message)
  }
}
