/**
 * Deadlines that share one sleeping fiber: a timer for each waiter would cost more than the waiting itself.
 */
import { Clock, Context, Duration, Effect, type Fiber, Scheduler } from "effect"
import { monotonicMillis } from "../millis.ts"
import { Heap, type Member } from "./Heap.ts"

/** Something with a deadline. */
export abstract class Deadline implements Member {
  position = -1
  /** Milliseconds of the clock's monotonic time. `Deadlines` writes it. */
  at = Infinity
  /** Orders deadlines that are due at the same time: the first that was set comes first. `Deadlines` writes it. */
  order = 0

  /** Runs when the time is up. */
  abstract onDeadline(): void
}

const isBefore = (self: Deadline, that: Deadline): boolean =>
  self.at < that.at || (self.at === that.at && self.order < that.order)

/** The deadlines of one clock. While there are none, no fiber sleeps and no timer keeps the process alive. */
export class Deadlines {
  private readonly heap = new Heap(isBefore)
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  private sleeper: Fiber.Fiber<void> | undefined
  private firing = false
  private count = 0

  constructor(clock: Clock.Clock, scheduler: Scheduler.Scheduler) {
    this.clock = clock
    // holds only what sleeping takes: the sleeping fiber may outlive the one that set the first deadline
    this.context = Context.make(Clock.Clock, clock).pipe(Context.add(Scheduler.Scheduler, scheduler))
  }

  /**
   * Calls `onDeadline` after that many milliseconds; at once on a clock that does not sleep for zero. A deadline that is
   * set already is moved.
   */
  set(deadline: Deadline, millis: number): void {
    this.heap.remove(deadline)
    deadline.at = this.now() + millis
    deadline.order = this.count++
    this.heap.push(deadline)
    if (this.firing || this.heap.peek() !== deadline) return
    this.sleeper?.interruptUnsafe()
    this.sleeper = Effect.runForkWith(this.context)(this.sleep)
  }

  /** Removes a deadline that is still to come. */
  clear(deadline: Deadline): void {
    this.heap.remove(deadline)
    if (this.firing || this.heap.size > 0) return
    this.sleeper?.interruptUnsafe()
    this.sleeper = undefined
  }

  private now(): number {
    return monotonicMillis(this.clock)
  }

  private readonly sleep: Effect.Effect<void> = Effect.suspend(() => {
    const at = this.heap.peek()?.at
    if (at === undefined) return Effect.void
    const nap = this.clock.sleep(Duration.millis(Math.max(0, at - this.now())))
    return Effect.flatMap(nap, () => {
      // a timer may be early by the fraction of a millisecond that it does not count
      this.fire(Math.max(at, this.now()))
      return this.sleep
    })
  })

  private fire(now: number): void {
    this.firing = true
    for (let first = this.heap.peek(); first !== undefined && first.at <= now; first = this.heap.peek()) {
      this.heap.remove(first)
      first.onDeadline()
    }
    this.firing = false
  }
}

/** By clock: the waiters of a test follow the test's time, beside others that follow another clock. */
const byClock = new WeakMap<Clock.Clock, Deadlines>()

/** Returns the deadlines of a fiber's clock. */
export const deadlinesOf = (fiber: Fiber.Fiber<unknown, unknown>): Deadlines => {
  const clock = fiber.getRef(Clock.Clock)
  let deadlines = byClock.get(clock)
  if (deadlines === undefined) {
    deadlines = new Deadlines(clock, fiber.getRef(Scheduler.Scheduler))
    byClock.set(clock, deadlines)
  }
  return deadlines
}
