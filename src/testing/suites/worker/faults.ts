/**
 * Drivers with injected faults: calls that do not reach the store, lost and late answers, interrupted streams.
 */
import { Array as Arr, Effect, Latch, Stream } from "effect"
import type { ClaimedMessage, BackendDriver, Fusion, Start } from "../../../BackendDriver.ts"
import type { BrokerDriver, SetAside } from "../../../BrokerDriver.ts"
import { startFromDefaults } from "../../../driver/index.ts"

/** Both ports of a pairing. */
export interface Drivers {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

type FusedClaim = Parameters<NonNullable<Fusion["claim"]>>[0]

/** A driver's operation, such as `backend.settle`. */
export type Operation =
  | `backend.${Exclude<keyof BackendDriver, "name" | "capabilities" | "batchKey" | "isPermanent" | "fusion">}`
  | `broker.${Exclude<keyof BrokerDriver, "name" | "capabilities" | "batchKey" | "isPermanent" | "store">}`

/**
 * How a call behaves. `passes`: normally. `fails`, `refused`: it does not reach the store, and fails with a retryable or a
 * permanent error. `answer lost`: it takes effect, and fails. `answer late`: it takes effect, and is answered after `heal`.
 * `hangs`: it is made after `heal`.
 */
export type FaultMode = "passes" | "fails" | "refused" | "answer lost" | "answer late" | "hangs"

/** A retryable error: the store is unavailable. */
class Unavailable extends Error {
  override readonly name = "Unavailable"
}

/** A permanent error: the store refuses the call. */
class Refused extends Error {
  override readonly name = "Refused"
}

/** Decides how calls behave. At first all of them pass. */
export class Faults {
  /** The mode of a call. */
  modeOf: (operation: Operation) => FaultMode = () => "passes"
  /** The number of calls so far, by operation, failed ones included. */
  readonly calls = new Map<Operation, number>()
  /** All starts that were requested. */
  readonly starts: Array<Start> = []
  private readonly healed = Latch.makeUnsafe(false)
  private interrupted = Latch.makeUnsafe(false)
  /** Returns the claims that a connection holds, as the server does when the connection is cut. */
  private returnClaims: () => void = () => {}

  /** Sets the mode of the first `times` calls of these operations. All other calls pass. */
  set(mode: FaultMode, operations: ReadonlyArray<Operation>, times = Infinity): void {
    let left = times
    this.modeOf = (operation) => (operations.includes(operation) && left-- > 0 ? mode : "passes")
  }

  /** Cuts the connection: all calls fail, streams are interrupted, and claims that the connection held are returned. */
  cut(): void {
    this.modeOf = () => "fails"
    this.interruptStreams()
    this.returnClaims()
  }

  /** Restores the connection: all calls pass, hanging calls are made, and late answers are given. */
  heal(): void {
    this.modeOf = () => "passes"
    this.healed.openUnsafe()
  }

  /** Makes every running stream fail. It can be run again. */
  interruptStreams(): void {
    const broken = this.interrupted
    this.interrupted = Latch.makeUnsafe(false)
    broken.openUnsafe()
  }

  count(operation: Operation): number {
    return this.calls.get(operation) ?? 0
  }

  private guardCall<A>(operation: Operation, effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> {
    return Effect.suspend(() => {
      this.calls.set(operation, this.count(operation) + 1)
      switch (this.modeOf(operation)) {
        case "passes":
          return effect
        case "fails":
          return Effect.fail(new Unavailable(`${operation} failed on purpose`))
        case "refused":
          return Effect.fail(new Refused(`${operation} is refused on purpose`))
        case "answer lost":
          return Effect.andThen(
            effect,
            Effect.fail(new Unavailable(`the answer of ${operation} was lost on purpose`))
          )
        case "answer late":
          return Effect.tap(effect, () => this.healed.await)
        case "hangs":
          return Effect.andThen(this.healed.await, effect)
      }
    })
  }

  private guardStream<A>(operation: Operation, stream: Stream.Stream<A, unknown>): Stream.Stream<A, unknown> {
    return Stream.suspend(() => {
      const away = Stream.fail(new Unavailable(`${operation} was interrupted on purpose`))
      if (this.modeOf(operation) !== "passes") return away
      return Stream.merge(stream, Stream.unwrap(Effect.as(this.interrupted.await, away)))
    })
  }

  /** A fused operation has the mode of the first of its steps. */
  private fuse({ claim, closeClaim, enqueue, settle, store }: Fusion): Fusion {
    return {
      store,
      enqueue: (batch) => this.guardCall("backend.create", enqueue(batch)),
      ...(claim === undefined
        ? {}
        : {
            claim: (asked) =>
              this.guardCall(
                "broker.claim",
                this.guardCall("backend.start", claim(this.guardHandOver(asked)))
              ).pipe(Effect.tap((claimed) => Effect.sync(() => this.recordStarts(asked, claimed))))
          }),
      ...(closeClaim === undefined
        ? {}
        : { closeClaim: (worker) => this.guardCall("broker.release", closeClaim(worker)) }),
      settle: (batch) => this.guardCall("backend.settle", settle(batch))
    }
  }

  /** What is handed over while claims or starts do not pass is lost on its way. */
  private guardHandOver(asked: FusedClaim): FusedClaim {
    const { onHandedOver } = asked
    if (onHandedOver === undefined) return asked
    return {
      ...asked,
      onHandedOver: (handedOver) => {
        if (this.modeOf("broker.claim") !== "passes" || this.modeOf("backend.start") !== "passes")
          return false
        const isTaken = onHandedOver(handedOver)
        if (isTaken) this.recordStarts(asked, [handedOver.message])
        return isTaken
      }
    }
  }

  private guardSetAside({ claim, tasks }: SetAside): SetAside {
    return {
      tasks: (queues) => this.guardCall("broker.setAside", tasks(queues)),
      claim: (asked) => this.guardCall("broker.setAside", claim(asked))
    }
  }

  private recordStarts({ startDefaults, worker }: FusedClaim, claimed: ReadonlyArray<ClaimedMessage>): void {
    for (const { delivery, run } of claimed) {
      const start = run && startFromDefaults(startDefaults, delivery, { token: run.token, worker })
      if (start !== undefined) this.starts.push(start)
    }
  }

  /** Wraps a driver. */
  private wrap<D extends BackendDriver | BrokerDriver>(port: "backend" | "broker", driver: D): D {
    const guard = (key: string, made: unknown): unknown => {
      const operation = `${port}.${key}` as Operation
      if (Effect.isEffect(made)) return this.guardCall(operation, made as Effect.Effect<unknown, unknown>)
      return Stream.isStream(made)
        ? this.guardStream(operation, made as Stream.Stream<unknown, unknown>)
        : made
    }
    const operations = Object.entries(driver).map(([key, value]: [string, unknown]) => [
      key,
      typeof value === "function" && key !== "batchKey" && key !== "isPermanent"
        ? (...args: ReadonlyArray<unknown>) => {
            if (key === "start") this.starts.push(...(args[0] as ReadonlyArray<Start>))
            return guard(key, Reflect.apply(value, driver, args))
          }
        : guard(key, value)
    ])
    const isPermanent = (error: unknown) =>
      error instanceof Refused || (!(error instanceof Unavailable) && driver.isPermanent?.(error) === true)
    const setAside =
      "setAside" in driver && driver.setAside !== undefined ? this.guardSetAside(driver.setAside) : undefined
    const fusion = "fusion" in driver && driver.fusion !== undefined ? this.fuse(driver.fusion) : undefined
    return {
      ...(Object.fromEntries(operations) as D),
      isPermanent,
      // interrupted streams lose hints
      capabilities: { ...driver.capabilities, reliableHints: false },
      ...(fusion === undefined ? {} : { fusion }),
      ...(setAside === undefined ? {} : { setAside })
    }
  }

  /** Records the claims of a driver whose connection holds them, for `returnClaims`. */
  private recordClaims(broker: BrokerDriver): BrokerDriver {
    const { returnUnhandled } = broker
    if (returnUnhandled === undefined) return broker
    const handles = new Set<string>()
    this.returnClaims = () => {
      const held = [...handles]
      handles.clear()
      if (Arr.isArrayNonEmpty(held)) Effect.runFork(Effect.ignore(returnUnhandled(held)))
    }
    return {
      ...broker,
      claim: (claim) =>
        Effect.tap(broker.claim(claim), (claimed) =>
          Effect.sync(() => claimed.forEach(({ handle }) => handles.add(handle)))
        )
    }
  }

  /** Wraps both drivers. */
  applyTo({ backend, broker }: Drivers): Drivers {
    return { backend: this.wrap("backend", backend), broker: this.wrap("broker", this.recordClaims(broker)) }
  }
}
