/** The surroundings of a sequence: a store, the time, and a log of what was done. */
import { isDeepStrictEqual } from "node:util"
import { Cause, Data, Effect } from "effect"
import { TestClock } from "effect/testing"
import type { BackendDriver } from "../../src/BackendDriver.ts"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"

/** The drivers of a store, or of two. No other sequence uses them at the same time. */
export interface Store {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

/** Settings of a sequence. */
export interface Setting {
  /** Milliseconds of a unit. In real time the commands between two unit boundaries have three tenths of it. */
  readonly unit: number
  /** Whether time is real; otherwise `TestClock` rules. */
  readonly live: boolean
  /** The queues of the messages. */
  readonly queues: readonly [string, ...Array<string>]
}

/** The store and the model disagree. The message lists all that was done. */
export class Disagreement extends Data.TaggedError("Disagreement")<{ readonly message: string }> {}

/** The machine was too slow for the unit: the sequence decides nothing. */
export class TooSlow extends Data.TaggedError("Late") {}

/** How a sequence can fail. */
export type Failure = Disagreement | TooSlow

/** Maximum delay of a command after its unit began, in units. Deadlines lie half a unit after. */
const MAX_DELAY_UNITS = 0.3

/** Formats an answer for the log. */
const formatAnswer = (answer: unknown): string =>
  typeof answer === "string" ? answer : JSON.stringify(answer)?.replaceAll('"', "").replaceAll("_tag:", "")

const formatDifference = (store: unknown, model: unknown): string => {
  const isPlain = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value)
  if (!isPlain(store) || !isPlain(model))
    return `the store says ${formatAnswer(store)}, the model ${formatAnswer(model)}`
  return [...new Set([...Object.keys(store), ...Object.keys(model)])]
    .filter((name) => !isDeepStrictEqual(store[name], model[name]))
    .map((name) => `${name}: ${formatDifference(store[name], model[name])}`)
    .join("\n      ")
}

/** A store, the time, and the log. */
export class ModelFixture {
  readonly store: Store
  readonly setting: Setting
  /** Milliseconds of the model since the beginning: whole units. */
  now = 0
  private readonly lines: Array<string> = []
  private readonly begin = performance.now()
  /** The store's clock at the beginning. */
  private epoch: number | undefined

  constructor(store: Store, setting: Setting) {
    this.store = store
    this.setting = setting
  }

  /** Converts units to milliseconds. */
  units(count: number): number {
    return count * this.setting.unit
  }

  /** Adds a line to the log. */
  log(line: string): void {
    this.lines.push(line)
  }

  /** Adds the answer to the last line. */
  logAnswer(text: unknown): void {
    this.lines.push(`${this.lines.pop() ?? ""} → ${formatAnswer(text)}`)
  }

  disagree(what: string): Effect.Effect<never, Disagreement> {
    const numbered = this.lines.map((line, n) => `${String(n + 1).padStart(4)}  ${line}`)
    return Effect.fail(new Disagreement({ message: [...numbered, `      ${what}`].join("\n") }))
  }

  /** Lets units pass. */
  advance(count: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.now += this.units(count)
      if (!this.setting.live) return TestClock.adjust(this.units(count))
      return Effect.sleep(Math.max(0, this.begin + this.now + 1 - performance.now()))
    })
  }

  private readonly assertPunctual: Effect.Effect<void, TooSlow> = Effect.suspend(() =>
    this.setting.live && performance.now() - this.begin - this.now > this.units(MAX_DELAY_UNITS)
      ? Effect.fail(new TooSlow())
      : Effect.void
  )

  /** Calls the store. */
  call<A>(call: Effect.Effect<A, unknown>): Effect.Effect<A, Failure> {
    return Effect.matchCauseEffect(call, {
      onSuccess: (answer) => Effect.as(this.assertPunctual, answer),
      onFailure: (cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.interrupt
          : Effect.andThen(this.assertPunctual, this.disagree(`the store failed: ${Cause.pretty(cause)}`))
    })
  }

  /** Fails unless the store's answer equals the model's. */
  assertEqual(what: string, store: unknown, model: unknown): Effect.Effect<void, Disagreement> {
    return isDeepStrictEqual(store, model)
      ? Effect.void
      : this.disagree(`${what}: ${formatDifference(store, model)}`)
  }

  /** Converts a time of the store to the model's, and to the expected one if it is within the tolerance. */
  toModelTime(store: number | null, model: number | null): number | null {
    if (store === null || model === null) return store
    this.epoch ??= store - model
    const late = store - this.epoch - model
    return Math.abs(late) <= this.tolerance ? model : store - this.epoch
  }

  /** How many milliseconds times may differ. */
  get tolerance(): number {
    return this.setting.live ? this.units(0.4) : 0
  }

  /** Returns the model's duration if the store's is within the tolerance. */
  roundToModel(store: number, model: number): number {
    return Math.abs(store - model) <= this.tolerance ? model : store
  }
}
