/**
 * The slot of one run. It is free while every fiber of the run waits for other tasks, and ends with the run.
 *
 * A fiber of the run is one that was made in its context. It waits inside of `without`, or while it is suspended in the
 * operation that forked other fibers, as in `Effect.all`, `Effect.forEach` and `Effect.race`. A fiber that is suspended in
 * any other operation holds the slot, because a sleep cannot be told from a query.
 */
import { Cause, Duration, Effect, Exit, Option, type Scheduler } from "effect"
import { CurrentRun } from "../task/CurrentRun.ts"
import { type AnyFiber, awaitsForked, type Forks } from "./observeFibers.ts"
import type { Slots } from "./slots.ts"

/** Whether a wait failed or was interrupted, and did not come to the end of a stream. */
const isGivenUp = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  !exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && Cause.isDone(reason.error))

/** The slot of a run, which is held at first. */
export class RunSlot {
  private readonly slots: Slots
  private readonly forks: Forks
  private held = true
  private ended = false
  /** Fibers that have not ended. */
  private alive = 0
  /** Fibers inside of `without`. */
  private waiting = 0
  /** Fibers that have forked others and have not ended. */
  private parents: Set<AnyFiber> | undefined
  private dispatcher: Scheduler.SchedulerDispatcher | undefined
  private willCheck = false
  /** Fibers that have waited, and need the slot to go on. */
  private resuming: Set<() => void> | undefined
  /** Withdraws the last request of a slot. */
  private withdraw: (() => void) | undefined

  constructor(slots: Slots, forks: Forks) {
    this.slots = slots
    this.forks = forks
  }

  /** Whether all fibers of the run wait for other tasks. A run whose wait is over, and that needs the slot, does not. */
  get isWaiting(): boolean {
    return !this.held && !this.ended && (this.resuming === undefined || this.resuming.size === 0)
  }

  onFiberStart(parent: AnyFiber | undefined): void {
    if (this.ended) return
    this.alive++
    if (parent !== undefined) {
      this.addParent(parent)
      this.forks.set(parent, parent.currentOpCount)
    }
    // a callback from outside has resumed the run
    this.hold()
  }

  private addParent(parent: AnyFiber): void {
    const parents = (this.parents ??= new Set())
    if (parents.has(parent)) return
    parents.add(parent)
    parent.addObserver(() => {
      parents.delete(parent)
      this.forks.delete(parent)
    })
  }

  onFiberEnd(): void {
    if (this.ended) return
    this.alive--
    if (this.waiting > 0) this.checkLater()
  }

  /** Ends the slot with its run: it is held, and nothing frees it any more. */
  end(): void {
    if (this.ended) return
    this.hold()
    this.ended = true
    for (const parent of this.parents ?? []) this.forks.delete(parent)
    this.parents = undefined
  }

  /** Runs an effect as a wait for other tasks. Fibers that it forks do not belong to the run. */
  without<A, E, R>(effect: Effect.Effect<A, E, R>, deadline?: bigint): Effect.Effect<A, E, R> {
    return Effect.withFiber((fiber) => {
      if (this.ended) return effect
      this.dispatcher = fiber.currentDispatcher
      return Effect.provideService(
        Effect.uninterruptibleMask((restore) => {
          this.waiting++
          this.checkLater()
          return Effect.flatMap(Effect.exit(restore(effect)), (exit) => {
            this.waiting--
            if (isGivenUp(exit)) this.hold()
            return this.held || this.ended ? exit : Effect.andThen(this.regain(restore, deadline), exit)
          })
        }),
        CurrentRun,
        undefined
      )
    })
  }

  /** Waits until the slot is held again. An interruption, and the deadline, take it at once. */
  private regain(
    restore: <A>(effect: Effect.Effect<A>) => Effect.Effect<A>,
    deadline: bigint | undefined
  ): Effect.Effect<void> {
    const waiting =
      deadline === undefined
        ? this.whenHeld()
        : Effect.clockWith((clock) => {
            const left = deadline - clock.monotonicTimeNanosUnsafe()
            if (left <= 0n) return Effect.sync(() => this.hold())
            return Effect.map(
              Effect.timeoutOption(this.whenHeld(), Duration.nanos(left)),
              Option.getOrElse(() => this.hold())
            )
          })
    return Effect.onInterrupt(restore(waiting), () => Effect.sync(() => this.hold()))
  }

  private whenHeld(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.held || this.ended) return resume(Effect.void)
      const resuming = (this.resuming ??= new Set())
      const go = () => resume(Effect.void)
      resuming.add(go)
      if (resuming.size === 1) this.withdraw = this.slots.request(() => this.onHeld())
      return Effect.sync(() => {
        resuming.delete(go)
        if (resuming.size === 0) this.withdraw?.()
      })
    })
  }

  private onHeld(): void {
    this.held = true
    for (const go of this.resuming ?? []) go()
    this.resuming?.clear()
  }

  /** Holds the slot, whether or not one is free. */
  private hold(): void {
    if (this.held || this.ended) return
    this.withdraw?.()
    this.slots.takeOver()
    this.onHeld()
  }

  /** Checks in the next turn, when what a fiber does in this one is over. */
  private checkLater(): void {
    if (this.willCheck || !this.held || this.dispatcher === undefined) return
    this.willCheck = true
    this.dispatcher.scheduleTask(() => this.check(), 0)
  }

  private check(): void {
    this.willCheck = false
    if (this.ended || !this.held || this.waiting === 0) return
    if (this.alive - this.waitingParents() > this.waiting) return
    this.held = false
    this.slots.give(1)
  }

  private waitingParents(): number {
    let count = 0
    for (const parent of this.parents ?? []) if (awaitsForked(parent, this.forks)) count++
    return count
  }
}
