/**
 * Whether a worker works, from what the process knows: no call is made to find out, and nothing is measured for it.
 *
 * Two things keep the facts: the claim loop and the heartbeat note when they called the store and when it answered, and
 * the tick that lets an idle worker claim every second notes whether the claim loop went round.
 */
import { Effect, Exit, type Scope } from "effect"
import type { Outages } from "../driver/Outages.ts"
import * as workerLog from "./workerLog.ts"

/**
 * Why a worker is not live or not ready, or `Ready`.
 *
 * - `Ready`: it claims tasks.
 * - `Starting`: the broker has not answered its first claim, or the backend its first heartbeat.
 * - `BrokerAway`: for 10 seconds the broker has answered no claim, although the worker called it, or a connection to it that is
 *   held open was lost.
 * - `BackendAway`: for the interval of its heartbeats and 10 seconds the backend has answered no heartbeat.
 * - `Draining`: the worker stops, or has stopped.
 * - `Stuck`: for a minute the claim loop has not gone round, although it had a free slot and waited for no answer.
 * - `LoopEnded`: a loop of the worker has ended, which is a defect of Chicory or of a driver.
 *
 * @category models
 * @since 0.1.0
 */
export type HealthCode =
  | "Ready"
  | "Starting"
  | "BrokerAway"
  | "BackendAway"
  | "Draining"
  | "Stuck"
  | "LoopEnded"

/**
 * Whether a worker works.
 *
 * **Details**
 *
 * `live` is `false` with `Stuck` and `LoopEnded` alone: a restart of the process helps. A store that is away, running
 * tasks that take all slots, and a worker that stops leave it `true`.
 *
 * `ready` is `true` with `Ready` alone.
 *
 * @category models
 * @since 0.1.0
 */
export interface Health {
  readonly live: boolean
  readonly ready: boolean
  readonly code: HealthCode
}

const SECOND = 1_000_000_000n
/** How long a store may leave calls unanswered, in nanoseconds. */
const AWAY_AFTER = 10n * SECOND
/** How long the claim loop may stand still with something to do, in nanoseconds. */
const STUCK_AFTER = 60n * SECOND

/** Calls of one operation, one at a time. A call that fails is repeated until one is answered. */
class Calls {
  isAnswered = false
  /** When the first call was sent that came after the last answer. */
  private unansweredSince: bigint | undefined

  onSent(now: bigint): void {
    this.unansweredSince ??= now
  }

  onAnswered(): void {
    this.isAnswered = true
    this.unansweredSince = undefined
  }

  isUnansweredFor(nanos: bigint, now: bigint): boolean {
    return this.unansweredSince !== undefined && now - this.unansweredSince >= nanos
  }
}

/** What a worker knows of its health. Times are those of its monotonic clock, in nanoseconds. */
export class WorkerHealth {
  /** The worker stops or has stopped. */
  isStopping = false
  private readonly heartbeatNanos: bigint
  /** Whether there is a backend, to which heartbeats are sent. */
  private readonly hasBackend: boolean
  private readonly brokerOutages: Outages
  private readonly claims = new Calls()
  private readonly heartbeats = new Calls()
  private isLoopEnded = false
  /** A claim is on its way. */
  private isClaiming = false
  /** Claims that were sent, also up to the last tick. */
  private sentClaims = 0
  private sentAtTick = 0
  /** When the claim loop last went round, or had a reason not to. `undefined`: it waits for hints alone. */
  private wentRoundAt: bigint | undefined

  constructor(heartbeatMillis: number, hasBackend: boolean, brokerOutages: Outages) {
    this.heartbeatNanos = BigInt(Math.ceil(heartbeatMillis)) * 1_000_000n
    this.hasBackend = hasBackend
    this.brokerOutages = brokerOutages
  }

  onClaimSent(now: bigint): void {
    this.isClaiming = true
    this.sentClaims++
    this.claims.onSent(now)
  }

  onClaimAnswered(): void {
    this.isClaiming = false
    this.claims.onAnswered()
  }

  onClaimFailed(): void {
    this.isClaiming = false
  }

  /** Notes whether the claim loop has gone round since the last tick. After the first tick others are expected. */
  onTick(now: bigint, hasFreeSlot: boolean): void {
    const mayWait = !hasFreeSlot || this.isClaiming
    if (mayWait || this.sentClaims !== this.sentAtTick || this.wentRoundAt === undefined)
      this.wentRoundAt = now
    this.sentAtTick = this.sentClaims
  }

  /** Notes when a heartbeat is sent, and when it is answered. */
  readonly heartbeat = <A, E>(now: bigint, sending: Effect.Effect<A, E>): Effect.Effect<A, E> => {
    this.heartbeats.onSent(now)
    return Effect.tap(sending, () => Effect.sync(() => this.heartbeats.onAnswered()))
  }

  onLoopEnd(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    if (this.isStopping) return Effect.void
    this.isLoopEnded = true
    return Exit.isFailure(exit) ? workerLog.loopEnded(exit.cause) : workerLog.loopEnded()
  }

  read(now: bigint): Health {
    const code = this.codeAt(now)
    return { live: code !== "Stuck" && code !== "LoopEnded", ready: code === "Ready", code }
  }

  private codeAt(now: bigint): HealthCode {
    // a restart would only cut the drain short
    if (this.isStopping) return "Draining"
    if (this.isLoopEnded) return "LoopEnded"
    if (this.wentRoundAt !== undefined && now - this.wentRoundAt >= STUCK_AFTER) return "Stuck"
    const { connectionLostAt } = this.brokerOutages
    const isCutOff = connectionLostAt !== undefined && now - connectionLostAt >= AWAY_AFTER
    // a broker that pushes messages answers claims from what it has pushed
    if (isCutOff || this.claims.isUnansweredFor(AWAY_AFTER, now)) return "BrokerAway"
    if (this.heartbeats.isUnansweredFor(this.heartbeatNanos + AWAY_AFTER, now)) return "BackendAway"
    const isAnswered = this.claims.isAnswered && (this.heartbeats.isAnswered || !this.hasBackend)
    return isAnswered ? "Ready" : "Starting"
  }
}

/** Forks a loop of a worker, which ends with the scope. A loop that ends before makes the worker's health `LoopEnded`. */
export const forkLoop =
  ({ health }: { readonly health: WorkerHealth }) =>
  <A, E, R>(loop: Effect.Effect<A, E, R>): Effect.Effect<void, never, R | Scope.Scope> =>
    Effect.asVoid(Effect.forkScoped(Effect.onExit(loop, (exit) => health.onLoopEnd(exit))))
