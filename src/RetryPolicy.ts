/**
 * Decides which failures of a task are retried, and when.
 *
 * A policy is plain data. The constructors make one, and a spread narrows it.
 *
 * **Example** (Retrying some errors)
 *
 * ```ts
 * import { RetryPolicy, Task } from "chicory"
 * import { Schema } from "effect"
 *
 * class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
 *   retryAfter: Schema.DurationFromMillis
 * }) {}
 * class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {}) {}
 *
 * const Charge = Task.make("card.charge", {
 *   error: Schema.Union([RateLimited, CardDeclined]),
 *   retry: {
 *     ...RetryPolicy.exponential({ maxRetries: 5, delay: "1 second" }),
 *     byTag: { RateLimited: (error) => error.retryAfter, CardDeclined: "never" }
 *   }
 * })
 * ```
 *
 * **Details**
 *
 * The message waits in the broker for its delay; no worker sleeps for it. Typed errors and timeouts of an attempt are
 * retried. Defects are bugs and are not, unless the task has `retryDefects`.
 *
 * @since 0.1.0
 * @module
 */
import { Duration, Effect, Option, Predicate, Random, Schedule } from "effect"
import { durationOrZero, nonNegativeDuration, positiveNumber, wholeNumber } from "./internal/options.ts"
import { delaysLeft, nextDelay } from "./internal/scheduleReplay.ts"

/**
 * Decides about one tag of error: `"never"` for no retry, `"discard"` for no retry and no dead letter, a delay, or a
 * function of the error that returns one of them. A delay below zero that the function returns is no delay.
 *
 * **Details**
 *
 * A task whose error is discarded ends as any other that failed, with its typed error; only the dead letter is left out.
 * The rule `"discard"` holds whatever `maxRetries` and `while` say.
 *
 * A delay is a floor, such as the `Retry-After` of a server: `jitter` spreads it between 100 % and 120 % of itself. Only
 * `maxDelay` makes it shorter.
 *
 * @see {@link ByTag}
 *
 * @category models
 * @since 0.1.0
 */
export type Rule<E> =
  | "never"
  | "discard"
  | Duration.Input
  | ((error: E) => Duration.Input | "never" | "discard")

/**
 * A rule for each tag of the task's error. The policy's schedule applies to tags without a rule.
 *
 * @category models
 * @since 0.1.0
 */
export type ByTag<E> = {
  readonly [Tag in Extract<E, { readonly _tag: string }>["_tag"]]?: Rule<Extract<E, { readonly _tag: Tag }>>
} & {
  /** Keeps the type from being `{}`, which would accept any tag. Never set. */
  readonly "~rules"?: never
}

/**
 * When a failed task is retried. `E` is the task's typed error.
 *
 * **Details**
 *
 * An error is not retried if `while` returns `false` for it, or if its rule in `byTag` is `"never"` or `"discard"`. No
 * failure is retried once `maxRetries` are used up or the schedule has ended. Otherwise the delay is that of the error's rule in
 * `byTag`, or else that of the schedule; `jitter` spreads it, and `maxDelay` bounds it.
 *
 * A timeout, a defect that is retried, and `TaskContext.retry` without a countdown take the schedule's delay; `while` and
 * `byTag` do not apply to them, and the schedule's input is `undefined`.
 *
 * A policy whose functions or whose schedule throw or fail ends the task with the reason `Died`, which has that error.
 *
 * @see {@link fixed}, {@link linear}, {@link exponential} and {@link fromSchedule} for constructors
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryPolicy<in E = unknown> {
  /** How often a task is retried after its first attempt. */
  readonly maxRetries: number
  /**
   * The delay before each retry. The retries end when it ends. Its input is the error that is retried; `undefined` for a
   * timeout, a defect, and a retry that the handler asks for. See `fromSchedule` for its clock.
   */
  readonly schedule: Schedule.Schedule<unknown, E | undefined, unknown>
  /** The longest delay, whichever rule it comes from. A countdown of `TaskContext.retry` may be longer. */
  readonly maxDelay?: Duration.Input | undefined
  /**
   * Whether each delay is spread between 80 % and 120 % of itself, and one of `byTag` between 100 % and 120 %, within
   * `maxDelay`. Default `false`.
   */
  readonly jitter?: boolean | undefined
  /** Returns whether an error may be retried. Default: every error may. */
  readonly while?: ((error: E) => boolean) | undefined
  /** Rules for single tags of the error. */
  readonly byTag?: ByTag<E> | undefined
}

/**
 * Options of `fixed`, `linear` and `exponential`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** How often a task is retried after its first attempt: a whole number from 0 on. */
  readonly maxRetries: number
  /** The delay before the first retry. */
  readonly delay: Duration.Input
  /** The longest delay. Default: unlimited. */
  readonly maxDelay?: Duration.Input | undefined
  /** Whether each delay is spread between 80 % and 120 % of itself, within `maxDelay`. Default `false`. */
  readonly jitter?: boolean | undefined
}

const fromDelay = (
  caller: string,
  options: Options,
  schedule: (delay: Duration.Duration) => Schedule.Schedule<unknown>
) => {
  const { delay, jitter, maxDelay, maxRetries } = options
  return check(caller, {
    maxRetries,
    schedule: schedule(nonNegativeDuration(`${caller}: delay`, delay)),
    ...(maxDelay === undefined ? {} : { maxDelay }),
    ...(jitter === undefined ? {} : { jitter })
  })
}

/**
 * Returns the policy, or throws a `RangeError` if an option is out of range.
 *
 * @internal
 */
export const check = <E>(caller: string, policy: RetryPolicy<E>): RetryPolicy<E> => {
  wholeNumber(`${caller}: maxRetries`, policy.maxRetries, 0)
  if (policy.maxDelay !== undefined) nonNegativeDuration(`${caller}: maxDelay`, policy.maxDelay)
  for (const [tag, rule] of Object.entries<Rule<never> | undefined>(policy.byTag ?? {})) {
    if (rule !== undefined && rule !== "never" && rule !== "discard" && typeof rule !== "function") {
      nonNegativeDuration(`${caller}: byTag.${tag}`, rule)
    }
  }
  return policy
}

/**
 * Never retries. It is the default of a task.
 *
 * @category constructors
 * @since 0.1.0
 */
export const never: RetryPolicy = { maxRetries: 0, schedule: Schedule.recurs(0) }

/**
 * Waits for `delay` before each retry. Throws if an option is out of range.
 *
 * @see {@link linear} and {@link exponential} for delays that grow
 *
 * @category constructors
 * @since 0.1.0
 */
export const fixed = (options: Options): RetryPolicy =>
  fromDelay("RetryPolicy.fixed", options, Schedule.spaced)

/**
 * Waits for `delay` before the first retry, and n times that before the n-th. Throws if an option is out of range.
 *
 * @see {@link fixed} for delays that stay the same
 * @see {@link exponential} for delays that grow faster
 *
 * @category constructors
 * @since 0.1.0
 */
export const linear = (options: Options): RetryPolicy =>
  fromDelay("RetryPolicy.linear", options, (delay) =>
    Schedule.modifyDelay(Schedule.forever, ({ output }) => Effect.succeed(Duration.times(delay, output + 1)))
  )

/**
 * Waits for `delay` before the first retry, and for `factor` times the last delay before each further one. `factor` is
 * above 0, and 2 by default. Throws if an option is out of range.
 *
 * @see {@link fixed} for delays that stay the same
 * @see {@link linear} for delays that grow more slowly
 *
 * @category constructors
 * @since 0.1.0
 */
export const exponential = (options: Options & { readonly factor?: number | undefined }): RetryPolicy =>
  fromDelay("RetryPolicy.exponential", options, (delay) =>
    Schedule.exponential(delay, positiveNumber("RetryPolicy.exponential: factor", options.factor ?? 2))
  )

/**
 * Waits for the delays of a schedule, until it ends.
 *
 * **Details**
 *
 * The schedule is replayed from its first step for each retry, because retries of a task run in different processes. Its
 * step for this retry is at the present time of the worker's `Clock`, so `Schedule.cron` finds the next time after the
 * failure. The steps before it are in the past, apart by the delays alone: handlers take no time, and
 * `Schedule.upTo({ duration })` bounds the sum of the delays.
 *
 * Its input is the error that is retried; `undefined` for a timeout, a defect, and a retry that the handler asks for. A
 * delay below zero is no delay. `maxRetries` bounds the retries further; by default the schedule alone ends them.
 *
 * **Example** (Retrying at night)
 *
 * ```ts
 * import { RetryPolicy, Task } from "chicory"
 * import { Cron, Schedule } from "effect"
 *
 * const Export = Task.make("books.export", {
 *   retry: RetryPolicy.fromSchedule(Schedule.cron(Cron.parseUnsafe("0 3 * * *", "Europe/Berlin")), {
 *     maxRetries: 3
 *   })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromSchedule = <E = unknown>(
  schedule: Schedule.Schedule<unknown, E | undefined, unknown>,
  options?: { readonly maxRetries?: number | undefined }
): RetryPolicy<E> =>
  check("RetryPolicy.fromSchedule", { maxRetries: options?.maxRetries ?? Number.MAX_SAFE_INTEGER, schedule })

/**
 * The decision of a policy about a failure.
 *
 * @internal
 */
export type Decision =
  | { readonly _tag: "Retry"; readonly after: Duration.Duration }
  /** `exhausted`: the policy allows a retry, and none is left. `discard`: the failure leaves no dead letter. */
  | { readonly _tag: "GiveUp"; readonly exhausted: boolean; readonly discard: boolean }

const giveUp = (exhausted: boolean, discard = false): Effect.Effect<Decision> =>
  Effect.succeed({ _tag: "GiveUp", exhausted, discard })

/**
 * Decides whether a typed error is retried, after the given number of retries.
 *
 * @internal
 */
export const decide = <E>(policy: RetryPolicy<E>, error: E, retries: number): Effect.Effect<Decision> =>
  Effect.suspend(() => {
    const rule = ruleOf(policy, error)
    const delay = typeof rule === "function" ? rule(error) : rule
    if (delay === "discard") return giveUp(false, true)
    if (policy.maxRetries === 0) return giveUp(false)
    if (policy.while !== undefined && !policy.while(error)) return giveUp(false)
    if (delay === "never") return giveUp(false)
    const given = delay === undefined ? undefined : durationOrZero("RetryPolicy: a delay of byTag", delay)
    return retryUnlessExhausted(policy, error, retries, (scheduled) =>
      given === undefined ? spread(policy, scheduled, 0.8) : spread(policy, given, 1)
    )
  })

/**
 * Decides whether a failure without a typed error is retried: a timeout, a defect, or a retry that the handler asks for.
 *
 * @internal
 */
export const decideUntyped = <E>(
  policy: RetryPolicy<E>,
  retries: number,
  countdown?: Duration.Duration
): Effect.Effect<Decision> =>
  Effect.suspend(() => {
    if (policy.maxRetries === 0) return giveUp(countdown !== undefined)
    return retryUnlessExhausted(policy, undefined, retries, (scheduled) =>
      countdown === undefined ? spread(policy, scheduled, 0.8) : Effect.succeed(countdown)
    )
  })

/**
 * Returns how many retries are left at most: a failure that the policy does not retry leaves none. The schedule is
 * followed for up to `limit` retries, without an input; a longer one counts as endless.
 *
 * @internal
 */
export const retriesLeft = <E>(
  policy: RetryPolicy<E>,
  retries: number,
  limit: number
): Effect.Effect<number> =>
  Effect.suspend(() => {
    const allowed = Math.max(0, policy.maxRetries - retries)
    const bound = Math.min(allowed, limit)
    if (bound === 0) return Effect.succeed(0)
    return Effect.map(delaysLeft(policy.schedule, undefined, retries, bound), (left) =>
      left < bound ? left : allowed
    )
  })

const ruleOf = <E>(policy: RetryPolicy<E>, error: E): Rule<E> | undefined =>
  policy.byTag !== undefined &&
  Predicate.hasProperty(error, "_tag") &&
  typeof error._tag === "string" &&
  Object.hasOwn(policy.byTag, error._tag)
    ? (policy.byTag as { readonly [tag: string]: Rule<E> | undefined })[error._tag]
    : undefined

/** Returns a retry after the delay that is made from the schedule's; none is left if the schedule has ended. */
const retryUnlessExhausted = <E>(
  policy: RetryPolicy<E>,
  input: E | undefined,
  retries: number,
  delay: (scheduled: Duration.Duration) => Effect.Effect<Duration.Duration>
): Effect.Effect<Decision> =>
  retries >= policy.maxRetries
    ? giveUp(true)
    : Effect.flatMap(nextDelay(policy.schedule, input, retries), (scheduled) =>
        Option.isNone(scheduled)
          ? giveUp(true)
          : Effect.map(delay(Duration.millis(scheduled.value)), (after): Decision => ({
              _tag: "Retry",
              after
            }))
      )

/** The largest part of a delay that `jitter` makes of it. */
const MOST = 1.2

/** Returns the delay, bounded as the policy says, and spread from a part of it on. */
const spread = <E>(
  policy: RetryPolicy<E>,
  delay: Duration.Duration,
  least: number
): Effect.Effect<Duration.Duration> => {
  const factor =
    policy.jitter === true ? Effect.map(Random.next, (n) => least + n * (MOST - least)) : Effect.succeed(1)
  return Effect.map(factor, (factor) => {
    const after = Duration.times(delay, factor)
    return policy.maxDelay === undefined
      ? after
      : Duration.min(after, Duration.fromInputUnsafe(policy.maxDelay))
  })
}
