/**
 * Deadlines that share one sleeping fiber: a timer for each of those who wait would cost more than their waiting
 * does.
 */
import { Clock, Context, Duration, Effect, type Fiber, Scheduler } from "effect"
import { Heap, type Member } from "./Heap.ts"

/** Something that is to be told when its time is up. */
export abstract class Deadline implements Member {
  position = -1
  /** Milliseconds of the clock's monotonic time. `Deadlines` writes it. */
  at = Infinity
  /** Of those that are due at the same time the first comes first. `Deadlines` writes it. */
  turn = 0

  /** The time is up. */
  abstract onDeadline(): void
}

const isBefore = (self: Deadline, that: Deadline): boolean =>
  self.at < that.at || (self.at === that.at && self.turn < that.turn)

/** The deadlines of one clock. Where there are none, no fiber sleeps, and no timer keeps the process alive. */
export class Deadlines {
  private readonly heap = new Heap(isBefore)
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  private sleeper: Fiber.Fiber<void> | undefined
  private ringing = false
  private turns = 0

  constructor(clock: Clock.Clock, scheduler: Scheduler.Scheduler) {
    this.clock = clock
    // no more of whoever came first than it takes to sleep, since the fiber may outlive it
    this.context = Context.make(Clock.Clock, clock).pipe(Context.add(Scheduler.Scheduler, scheduler))
  }

  /** Tells it when that many milliseconds have passed; on a clock whose sleep of zero is none, at once. */
  set(deadline: Deadline, millis: number): void {
    deadline.at = this.now() + millis
    deadline.turn = this.turns++
    this.heap.push(deadline)
    if (this.ringing || this.heap.peek() !== deadline) return
    this.sleeper?.interruptUnsafe()
    this.sleeper = Effect.runForkWith(this.context)(this.sleep)
  }

  /** Takes it back, if it is still to come. */
  clear(deadline: Deadline): void {
    this.heap.remove(deadline)
    if (this.ringing || this.heap.size > 0) return
    this.sleeper?.interruptUnsafe()
    this.sleeper = undefined
  }

  private now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  private readonly sleep: Effect.Effect<void> = Effect.suspend(() => {
    const at = this.heap.peek()?.at
    if (at === undefined) return Effect.void
    const nap = this.clock.sleep(Duration.millis(Math.max(0, at - this.now())))
    return Effect.flatMap(nap, () => {
      // a timer may be early by the fraction of a millisecond that it does not count
      this.ring(Math.max(at, this.now()))
      return this.sleep
    })
  })

  private ring(now: number): void {
    this.ringing = true
    for (let first = this.heap.peek(); first !== undefined && first.at <= now; first = this.heap.peek()) {
      this.heap.remove(first)
      first.onDeadline()
    }
    this.ringing = false
  }
}

/** By clock, so that a test's waiters hear of its time, also beside others that live by another. */
const byClock = new WeakMap<Clock.Clock, Deadlines>()

/** The deadlines of the clock that a fiber lives by. */
export const deadlinesOf = (fiber: Fiber.Fiber<unknown, unknown>): Deadlines => {
  const clock = fiber.getRef(Clock.Clock)
  let deadlines = byClock.get(clock)
  if (deadlines === undefined) {
    deadlines = new Deadlines(clock, fiber.getRef(Scheduler.Scheduler))
    byClock.set(clock, deadlines)
  }
  return deadlines
}
